"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path

from avgn.runtime.outputs import write_whole

__all__ = ["cache_folder", "write_whole"]


def cache_folder() -> Path:
    """Where engines built or verified here are kept: AVGN_CACHE, else the user's cache folder."""
    given = os.environ.get("AVGN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avgn"
