"""The page's files, read once: a request never reaches the file system."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"
# what the names of files begin with that visitors who teach need
LESSONS = "teach"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    kind: str
    etag: str


def read_page(folder: Path = PAGE, *, teach: bool = False) -> dict[str, PageFile]:
    """Return the files of a folder by the path that they are asked for; those of lessons only to `teach`."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in KINDS and (teach or not path.name.startswith(LESSONS)):
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[f"/{path.name}"] = PageFile(content=content, kind=KINDS[path.suffix], etag=etag)
    return {"/": found[f"/{INDEX}"], **found}


class PageFiles:
    """Answers GET and HEAD for the page's files."""

    def __init__(self, *, teach: bool = False) -> None:
        self._files = read_page(teach=teach)

    async def __call__(self, request: Request) -> Response:
        """Answer with the file, or with 404."""
        file = self._files.get(request.scope["path"])
        if file is None:
            return PlainTextResponse("there is no such page", status_code=404)
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers={"etag": file.etag})
        return Response(file.content, media_type=file.kind, headers={"etag": file.etag})
