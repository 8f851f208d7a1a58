"""Writing to what is there already: devices, FIFOs, descriptors and standard output."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import sys
import time
from contextlib import suppress
from typing import TextIO

from avgn.runtime.errors import InputError
from avgn.runtime.outputs.place import STDOUT, Place
from avgn.runtime.outputs.reasons import shown, write_error

log = logging.getLogger("avgn.runtime")

# a FIFO that can be written to takes so much without blocking
PIECE = 512 if sys.platform != "linux" else 4096
POLL_SECONDS = 0.2
SAY_AFTER_SECONDS = 1.0
PATIENCE_SECONDS = 1.0


class DirectFile:
    """Bytes go out as they are written; nothing is made, replaced or removed."""

    is_direct = True

    def __init__(self, place: Place, *, kind: str = "output") -> None:
        """Opens a FIFO when its reader comes: until then an interrupt ends the waiting. Raises InputError."""
        self.name = place.name
        self.error: OSError | None = None
        self._hurried = False
        self._stream = _replaced_stdout(place)
        try:
            self._handle: int | None = _open(place) if self._stream is None else None
        except OSError as error:
            raise write_error(self.name, error, kind) from None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of it. Raises BrokenPipeError when the reader has gone, or OSError."""
        view = memoryview(data).cast("B")
        if self._stream is not None:
            self._stream.write(bytes(view).decode("utf-8", "replace"))
            return len(view)
        if self._handle is None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), self.name)
        at = 0
        try:
            while at < len(view):
                self._wait()
                at += os.write(self._handle, view[at : at + PIECE])
        except BrokenPipeError:
            self.error = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), self.name)
            raise self.error from None
        except OSError as error:
            self.error = error
            raise
        return len(view)

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def hurry(self) -> None:
        """From now on a reader that does not read is not waited for."""
        self._hurried = True

    def commit(self) -> None:
        """Close; what was written is out already."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def abort(self) -> None:
        """Close: what is out can't be taken back."""
        with suppress(OSError):
            self.commit()

    def _wait(self) -> None:
        """Wait until a piece can be written without blocking, so that an interrupt is never held up for long."""
        assert self._handle is not None
        begin = time.monotonic()
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        while not poll.poll(1000 * POLL_SECONDS):
            if self._hurried and time.monotonic() - begin > PATIENCE_SECONDS:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), self.name)


def _replaced_stdout(place: Place) -> TextIO | None:
    """Return what stands in for standard output in notebooks and under contextlib.redirect_stdout, else None."""
    if place.name != STDOUT or sys.stdout is None:
        return None
    try:
        return None if sys.stdout.fileno() == 1 else sys.stdout
    except (OSError, ValueError, AttributeError):
        return sys.stdout


def _open(place: Place) -> int:
    if place.is_stdout or place.descriptor is not None:
        return _duplicate(1 if place.descriptor is None else place.descriptor)
    if stat.S_ISFIFO(os.stat(place.path).st_mode):
        return _open_fifo(place)
    # neither made nor cut: a terminal must not become ours
    return os.open(place.path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


def _duplicate(number: int) -> int:
    import fcntl

    stream = {1: sys.stdout, 2: sys.stderr}.get(number, sys.stderr)
    if stream is None:
        # closed when the process began: another file may have taken its number
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    stream.flush()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return os.dup(number)


def _open_fifo(place: Place) -> int:
    begin, said = time.monotonic(), False
    while True:
        try:
            handle = os.open(place.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        else:
            if not stat.S_ISFIFO(os.fstat(handle).st_mode):
                os.close(handle)
                raise InputError(f"output {shown(place.name)} was a FIFO and no longer is: choose another path")
            os.set_blocking(handle, True)
            return handle
        if not said and time.monotonic() - begin > SAY_AFTER_SECONDS:
            said = True
            log.warning("output %s waits for somebody who reads it: Ctrl-C ends the waiting", shown(place.name))
        time.sleep(POLL_SECONDS / 4)
