"""Opening an output wherever it goes, and writing one in a single piece."""

from __future__ import annotations

import os
from pathlib import Path

from avgn.runtime.outputs.direct import DirectFile
from avgn.runtime.outputs.place import Name, Place, find_place
from avgn.runtime.outputs.reasons import write_error
from avgn.runtime.outputs.whole import WholeFile

OutputFile = DirectFile | WholeFile


def open_output(name: Name, *inputs: Path, kind: str = "output") -> OutputFile:
    """Open an output for as long as a run lasts; no other run may write it meanwhile.

    `inputs`: files that must not be replaced. Raises InputError when it can't be written.
    """
    place = find_place(name, *inputs, kind=kind)
    return DirectFile(place, kind=kind) if place.is_direct else WholeFile(place, kind=kind)


def check_output(name: Name, *inputs: Path, kind: str = "output") -> Place:
    """Raise InputError now for an output that could not be written later; nothing is left or changed."""
    place = find_place(name, *inputs, kind=kind)
    if not place.is_direct:
        WholeFile(place, kind=kind).abort()
    return place


def write_whole(name: Name, content: str | bytes, kind: str = "file") -> Path:
    """Write a file (text as UTF-8) that appears whole or not at all; returns its path.

    Raises InputError, with nothing left, when it can't be written.
    """
    place = find_place(name, kind=kind)
    file = DirectFile(place, kind=kind) if place.is_direct else WholeFile(place, alone=False, kind=kind)
    try:
        # names from a disk may hold bytes that are no UTF-8
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        file.commit()
    except BrokenPipeError:
        file.abort()
        raise
    except OSError as error:
        file.abort()
        raise write_error(name, error, kind) from None
    except BaseException:
        file.abort()
        raise
    return Path(os.fsdecode(name))
