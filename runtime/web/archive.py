"""The taught bundle as a file on its way to a visitor: as fast as it is read, and no faster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from avgn.runtime.web.door import Visit
from avgn.runtime.web.lessons import LessonError
from avgn.runtime.web.school import School

PIECE = 64 * 1024
# bytes within which a slow visitor has the time of one answer once more
STRETCH = 1024 * 1024


class Archive:
    """Answers with the bundle as it is now."""

    def __init__(self, school: School) -> None:
        self._school = school

    async def answer(self, visit: Visit) -> Response:
        """Return the .zip, or 503 where too many are on their way."""
        if self._school.archives.locked():
            return PlainTextResponse("too many archives are on their way: ask again", status_code=503)
        async with self._school.archives:
            try:
                path = await self._school.pack()
                # an open file stays what it is when the bundle changes
                file = await asyncio.to_thread(open, path, "rb")
            except (LessonError, OSError):
                return PlainTextResponse("the bundle can't be packed", status_code=500)
        headers = {
            "content-length": str(os.fstat(file.fileno()).st_size),
            "content-disposition": 'attachment; filename="avgn-taught.zip"',
        }
        return StreamingResponse(self._pieces(file, visit), media_type="application/zip", headers=headers)

    async def _pieces(self, file: BinaryIO, visit: Visit) -> AsyncIterator[bytes]:
        sent = 0
        async with self._school.archives:
            with file:
                while piece := await asyncio.to_thread(file.read, PIECE):
                    yield piece
                    sent += len(piece)
                    if sent >= STRETCH:
                        visit.touch()
                        sent = 0
