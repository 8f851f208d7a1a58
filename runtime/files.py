"""Files that appear whole or not at all, and where those that can be made again are kept."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from avgn.runtime.errors import InputError


def cache_folder() -> Path:
    """Where engines built or verified here are kept: AVGN_CACHE, else the user's cache folder."""
    given = os.environ.get("AVGN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avgn"


def write_whole(path: str | os.PathLike[str], content: str | bytes, kind: str = "file") -> Path:
    """Write a file (text as UTF-8) under another name first.

    Raises InputError, with nothing left, when it can't be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        # names from a disk may hold bytes that are no UTF-8
        partial.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(f"{kind} {path} can't be written ({error.strerror}): choose another path") from None
    return path
