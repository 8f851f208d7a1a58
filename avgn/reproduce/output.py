"""The folder of a run: one process writes it at a time, and what it holds was made with one set of settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avgn.runtime.documents import LARGEST, parse_json
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.regular import read_regular

SETTINGS = "settings.json"
LOCK = ".lock"


@contextmanager
def held_output(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it. Raises InputError where that can't be done."""
    import filelock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise InputError(f"another run is writing to {folder}: wait for it or choose another --output") from None
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        if error.filename is None or Path(error.filename) not in (folder, folder / LOCK, *folder.parents):
            raise
        raise InputError(f"output folder {folder} can't be used ({error.strerror}): choose another one") from None


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note what a run is made with; raises InputError when the folder holds one that was made otherwise."""
    path = folder / SETTINGS
    if not path.is_file():
        write_whole(path, json.dumps(settings, indent=1) + "\n")
        return
    try:
        before = parse_json(read_regular(path, LARGEST))
        if not isinstance(before, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError):
        raise InputError(f"{path} can't be read: choose another --output") from None
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        raise InputError(
            f"{folder} holds a run with another {' and '.join(changed)}: choose another --output, or give that "
            "run's options"
        )
