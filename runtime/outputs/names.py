"""The names that outputs have while they are written: beside their place, and not to be guessed."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.outputs.locks import is_locked
from avgn.runtime.outputs.reasons import shown

log = logging.getLogger("avgn.runtime")

ENDING = ".partial"
TOKEN_BYTES = 5
LONGEST_STEM = 200


def new_name(target: Path) -> Path:
    """Return a path beside `target` that nobody can foresee."""
    return target.with_name(f"{_stem(target)}.{secrets.token_hex(TOKEN_BYTES)}{ENDING}")


def left_over(target: Path) -> list[Path]:
    """Return what runs on `target` have beside it, and what runs that were killed left behind."""
    beginning = f"{_stem(target)}."
    length = len(beginning) + 2 * TOKEN_BYTES + len(ENDING)
    try:
        names = os.listdir(target.parent)
    except OSError:
        return []
    found = [name for name in names if len(name) == length and name.startswith(beginning) and name.endswith(ENDING)]
    return [target.with_name(name) for name in sorted(found)]


def refuse_second_run(name: str, target: Path, kind: str = "output") -> None:
    """Raise InputError when another run writes `target`; say what a killed one left."""
    for path in left_over(target):
        if is_locked(path):
            raise InputError(
                f"{kind} {shown(name)} is being written by another run: wait for it or choose another path"
            )
        log.warning(
            "%s was left by a run that was cut off while it wrote %s: keep or remove it", shown(path), shown(name)
        )


def _stem(target: Path) -> str:
    encoded = os.fsencode(target.name)
    if len(encoded) <= LONGEST_STEM:
        return target.name
    # what follows the name must fit, too
    return encoded[: LONGEST_STEM - 41].decode("utf-8", "ignore") + "~" + hashlib.sha1(encoded).hexdigest()
