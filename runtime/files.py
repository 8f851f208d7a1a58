"""Where files that can be made again are kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.outputs import write_whole

__all__ = ["cache_folder", "write_whole"]

# the cache's folders whose content decides what runs
PARTS = ("trusted", "verified", "engines", "onnxruntime-tensorrt", "web")


def cache_folder() -> Path:
    """Return where engines built or verified here are kept: AVGN_CACHE, else the user's cache folder.

    Raises InputError for a folder into which somebody else may write: what lies there is believed.
    """
    given = os.environ.get("AVGN_CACHE")
    folder = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avgn"
    for path in (folder, *(folder / name for name in PARTS)):
        _check_owner(path)
    return folder


def _check_owner(path: Path) -> None:
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return
    # Windows has neither
    if not hasattr(os, "geteuid"):
        return
    if facts.st_uid not in (os.geteuid(), 0):
        raise InputError(
            f"cache folder {path} belongs to another user, who could change what is kept there: let AVGN_CACHE name a "
            "folder of your own"
        )
    if facts.st_mode & stat.S_IWOTH:
        raise InputError(
            f"cache folder {path} can be written by everybody: chmod o-w it, or let AVGN_CACHE name another"
        )
