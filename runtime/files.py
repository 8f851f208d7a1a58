"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from avgn.runtime.errors import InputError


def write_whole(path: str | os.PathLike[str], content: str | bytes, kind: str = "file") -> Path:
    """Write a file (text as UTF-8) under another name first.

    Raises InputError, with nothing left, when it can't be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(f"{kind} {path} can't be written ({error.strerror}): choose another path") from None
    return path
