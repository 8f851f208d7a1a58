"""Files that appear whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from avgn.runtime.interrupts import shield
from avgn.runtime.outputs.locks import lock, turn
from avgn.runtime.outputs.names import new_name, refuse_second_run
from avgn.runtime.outputs.place import Place
from avgn.runtime.outputs.reasons import write_error

_open: set[WholeFile] = set()


def abandon() -> None:
    """Remove what this process has begun to write and not finished: the last thing before it ends."""
    for file in list(_open):
        file.abort()


class WholeFile:
    """A file under a name of its own until `commit` puts it in its place.

    `partial` is where it lies until then: a killed process leaves it there.
    """

    is_direct = False

    def __init__(self, place: Place, *, alone: bool = True, kind: str = "output") -> None:
        """`alone`: no other run may write it meanwhile. Raises InputError when it can't be written."""
        self.name = place.name
        self.error: OSError | None = None
        self._place = place
        self._handle = -1
        self._pid = os.getpid()
        try:
            if alone:
                with turn(place.path.parent):
                    refuse_second_run(self.name, place.path, kind)
                    self._make()
            else:
                self._make()
        except OSError as error:
            raise write_error(self.name, error, kind) from None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of it. Raises OSError."""
        view = memoryview(data).cast("B")
        at = 0
        try:
            while at < len(view):
                at += os.write(self._handle, view[at:])
        except OSError as error:
            self.error = error
            raise
        return at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._handle, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._handle, 0, os.SEEK_CUR)

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def hurry(self) -> None:
        """A file never waits for anybody."""

    def commit(self) -> None:
        """Put the file in its place, with the permissions of the one it replaces. Raises OSError."""
        if self._handle < 0:
            return
        if self._place.mode is not None:
            with suppress(OSError):
                os.fchmod(self._handle, self._place.mode)
        with shield():
            self.partial.replace(self._place.path)
            self._close()

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._handle >= 0 and self._pid == os.getpid():
            with suppress(OSError):
                self.partial.unlink()
            self._close()

    def _make(self) -> None:
        self.partial: Path = new_name(self._place.path)
        # never through a link that somebody laid there, and never into a file that is there
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        with shield():
            self._handle = os.open(self.partial, flags, 0o666)
            _open.add(self)
        lock(self._handle)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        _open.discard(self)
        with suppress(OSError):
            os.close(handle)
