"""What an output's path stands for: the one place where this is decided, for every output of the product."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.outputs.reasons import shown, write_error

STDOUT = "-"
# how many links a path may lead through, as in Linux
MOST_LINKS = 40
DESCRIPTOR = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd/(\d+)|/dev/fd/(\d+)")

Name = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an output goes.

    `name`: as it was given; `path`: the target of links. `is_direct`: it is a device, a FIFO or a descriptor, written
    to as it is and never replaced; `descriptor`: of this process. `mode`: the permissions of the file that is replaced.
    """

    name: str
    path: Path
    is_direct: bool = False
    is_stdout: bool = False
    descriptor: int | None = None
    mode: int | None = None


def find_place(name: Name, *inputs: Path, kind: str = "output") -> Place:
    """Decide what `name` stands for: "-", a device or FIFO, a link, a file that is there or one to be made.

    `inputs`: files that must not be written to. Nothing is opened or changed. Raises InputError, with the reason and
    the way out, for what can't be an output.
    """
    text = os.fsdecode(name)
    if text == STDOUT:
        return Place(name=text, path=Path(text), is_direct=True, is_stdout=True)
    if not text or "\0" in text:
        raise InputError(f"{kind} {text!r} is no path: give the name of a file")
    try:
        descriptor = _descriptor(text)
        found = _stat(text) if descriptor is None else os.fstat(descriptor)
        if found is not None:
            _refuse_inputs(text, found, inputs, kind)
        if descriptor is not None:
            return Place(name=text, path=Path(text), is_direct=True, is_stdout=descriptor == 1, descriptor=descriptor)
        if found is None:
            return Place(name=text, path=_new_path(text, kind))
        return _existing(text, found, kind)
    except OSError as error:
        raise write_error(text, error, kind) from None


def takes_stdout(*names: Name | None) -> bool:
    """Return whether one of the outputs is standard output, which then belongs to it alone."""
    return any(name is not None and find_place(name).is_stdout for name in names)


def check_distinct(names: Iterable[Name | None], kind: str = "outputs") -> None:
    """Raise InputError when two outputs go to one place; only devices such as /dev/null may take several."""
    taken: dict[object, str] = {}
    for name in names:
        if name is None:
            continue
        place = find_place(name)
        key: object = 1 if place.is_stdout else place.descriptor or place.path
        if place.is_direct and not place.is_stdout:
            found = os.stat(place.path) if place.descriptor is None else os.fstat(place.descriptor)
            if stat.S_ISCHR(found.st_mode):
                continue
            key = (found.st_dev, found.st_ino)
        if key in taken:
            raise InputError(f"two {kind} are to be written to {shown(place.name)}: choose a path for each")
        taken[key] = place.name


def _existing(text: str, found: os.stat_result, kind: str) -> Place:
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{kind} {shown(text)} is a folder: give the name of a file")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        what = "a disk" if stat.S_ISBLK(mode) else "a socket"
        raise InputError(f"{kind} {shown(text)} is {what}: choose a file, a FIFO or - for standard output")
    if not stat.S_ISREG(mode) or _other_descriptor(text):
        return Place(name=text, path=Path(text), is_direct=True)
    # root may write to everything: what somebody protected stays, all the same
    if not mode & 0o222 or not os.access(text, os.W_OK):
        whose = "is write-protected" if not mode & 0o222 else "belongs to somebody else"
        raise InputError(f"{kind} {shown(text)} can't be replaced ({whose}): change its permissions or choose another")
    return Place(name=text, path=Path(os.path.realpath(text)), mode=stat.S_IMODE(mode))


def _new_path(text: str, kind: str) -> Path:
    """Return the path of a file to be made: a link that leads to nothing yet is followed."""
    path = Path(os.path.realpath(text))
    if text.endswith(os.sep):
        raise InputError(f"{kind} {shown(text)} is the name of a folder: give the name of a file")
    if not os.path.isdir(path.parent):
        whose = f"the folder that it links into, {shown(str(path.parent))}," if os.path.islink(text) else "its folder"
        raise InputError(f"{kind} {shown(text)} can't be written: {whose} does not exist, so make it or choose another")
    return path


def _stat(text: str) -> os.stat_result | None:
    """Return the facts of what is there, links followed; None where nothing is. Raises OSError for loops and long
    names."""
    try:
        return os.stat(text)
    except FileNotFoundError:
        return None


def _refuse_inputs(text: str, found: os.stat_result, inputs: tuple[Path, ...], kind: str) -> None:
    for given in inputs:
        there = _stat(os.fspath(given))
        if there is not None and (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
            raise InputError(f"{kind} {shown(text)} is also an input: choose another name")


def _descriptor(text: str) -> int | None:
    """Return the descriptor of this process that a path such as /dev/stdout or a link to /dev/fd/3 leads to, or
    None."""
    match = _match_descriptor(text)
    if match is None or (match[1] is not None and int(match[1]) != os.getpid()):
        return None
    number = int(match[2] or match[3])
    try:
        os.fstat(number)
    except OSError:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
    return number


def _other_descriptor(text: str) -> bool:
    return _match_descriptor(text) is not None


def _match_descriptor(text: str) -> re.Match[str] | None:
    # link by link: what /proc links to is a description, not a path
    for _ in range(MOST_LINKS):
        folder, last = os.path.split(text)
        text = os.path.join(os.path.realpath(folder), last)
        if match := DESCRIPTOR.fullmatch(text):
            return match
        if not os.path.islink(text):
            return None
        text = os.path.join(os.path.dirname(text), os.readlink(text))
    return None
