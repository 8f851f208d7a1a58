"""Outputs that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from avgn.runtime.errors import InputError


def prepare_output(path: str | os.PathLike[str], *inputs: Path) -> Path:
    """Check that a file can be written at `path`; returns the path of its partial form.

    Raises InputError when the folder is missing or not writable, or when `path` is one of the inputs.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"output {path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"output {path} can't be written: its folder does not exist, so make it or choose another")
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise InputError(f"output {path} is also an input: choose another name")
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(b"")
    except OSError as error:
        raise write_error(path, error) from None
    return partial


def write_error(path: Path, error: Exception) -> InputError:
    """The one-sentence error for an output that could not be written."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(f"output {path} can't be written ({reason}): free some space or choose another folder")


class TextOutput:
    """A text file that appears on `close`; the base of the sinks that write lines."""

    def __init__(self, path: str | os.PathLike[str], *inputs: Path) -> None:
        """`inputs`: files that the output must not replace. Raises InputError when it can't be written."""
        self.path = Path(path)
        self._partial = prepare_output(path, *inputs)
        self._file = self._partial.open("w", encoding="utf-8", newline="")

    def write(self, text: str) -> None:
        """Raises InputError, with nothing left behind, when the disk is full."""
        try:
            self._file.write(text)
        except OSError as error:
            self.abort()
            raise write_error(self.path, error) from None

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file; what was written before an interrupt is whole lines and stays."""
        if self._file.closed:
            return
        try:
            self._file.close()
            self._partial.replace(self.path)
        except OSError as error:
            self.abort()
            raise write_error(self.path, error) from None

    def abort(self) -> None:
        """Leave nothing behind."""
        # the buffer may not fit on the disk; the file goes anyway
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)
