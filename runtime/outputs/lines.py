"""Text that grows line by line."""

from __future__ import annotations

import os
import time
from pathlib import Path

from avgn.runtime.outputs.opening import open_output
from avgn.runtime.outputs.reasons import write_error

BUFFER = 1 << 16
# what a process that is killed may lose of a file
BUFFER_SECONDS = 1.0


class TextOutput:
    """Takes text of whole lines; the base of the sinks that write lines.

    A file appears on `close`. Devices, FIFOs and standard output get every line at once.
    """

    def __init__(self, path: str | os.PathLike[str], *inputs: Path) -> None:
        """`inputs`: files that the output must not replace. Raises InputError when it can't be written."""
        self._file = open_output(path, *inputs)
        self._buffer = bytearray()
        self._written = time.monotonic()
        self.closed = False

    def write(self, text: str) -> None:
        """Raises InputError, with nothing left behind, when the disk is full; BrokenPipeError without a reader."""
        self._buffer += text.encode("utf-8", "backslashreplace")
        late = time.monotonic() - self._written > BUFFER_SECONDS
        if self._file.is_direct or late or len(self._buffer) >= BUFFER:
            self._flush()

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file; what was written before an interrupt is whole lines and stays."""
        if self.closed:
            return
        self._flush()
        try:
            self._file.commit()
        except OSError as error:
            self.abort()
            raise write_error(self._file.name, error) from None
        self.closed = True

    def hurry(self) -> None:
        """Stop waiting for a reader that does not read: the run is to end."""
        self._file.hurry()

    def abort(self) -> None:
        """Leave nothing behind."""
        self.closed = True
        self._file.abort()

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        self._written = time.monotonic()
        try:
            self._file.write(data)
        except BrokenPipeError:
            self.abort()
            raise
        except OSError as error:
            self.abort()
            raise write_error(self._file.name, error) from None
