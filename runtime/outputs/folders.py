"""Folders that appear whole or not at all, and folders that one run at a time fills."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.outputs.locks import lock, turn
from avgn.runtime.outputs.names import left_over, new_name, refuse_second_run
from avgn.runtime.outputs.reasons import shown, write_error

# what says that a folder is complete is moved into it last
LAST = (".json", ".jsonl")


@contextmanager
def new_folder(target: str | os.PathLike[str], kind: str = "folder", *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder to fill that becomes `target` when all went well, and is gone otherwise.

    `target` may be an empty folder, which is filled at the end, or with `overwrite` one that is replaced; links to
    folders are followed. Raises InputError, with nothing left, for anything else and when it can't be written.
    """
    name, path = os.fsdecode(target), Path(os.path.realpath(target))
    handle = -1
    partial: Path | None = None
    try:
        is_there = _check_free(name, path, kind, overwrite)
        _make_parents(path)
        # a folder that is there may be mounted: beside it may be another file system
        inside = path / path.name if is_there and not _entries(path) else path
        with turn(inside.parent):
            refuse_second_run(name, inside, kind)
            partial = new_name(inside)
            partial.mkdir()
            handle = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            lock(handle)
        yield partial
        if inside != path:
            _move_in(partial, path)
        else:
            _put_in_place(partial, path)
    except OSError as error:
        raise write_error(name, error, kind) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


@contextmanager
def held_folder(folder: str | os.PathLike[str], kind: str = "output folder") -> Iterator[Path]:
    """Make a folder, if it is not there, and keep other runs out of it; one that stayed empty goes again.

    Raises InputError where that can't be done.
    """
    name, path = os.fsdecode(folder), Path(folder)
    fresh = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileExistsError:
        raise InputError(f"{kind} {shown(name)} can't be written (it is a file): choose another path") from None
    except OSError as error:
        raise write_error(name, error, kind) from None
    try:
        if not lock(handle):
            raise InputError(f"{kind} {shown(name)} is being written by another run: wait for it or choose another")
        yield path
    finally:
        os.close(handle)
        if fresh:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Let folders that are made within, and are still empty when it fails, go again: inner ones are named first."""
    fresh = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in fresh:
            with suppress(OSError):
                folder.rmdir()
        raise


def _check_free(name: str, path: Path, kind: str, overwrite: bool) -> bool:
    """Return whether a folder is there that may be used."""
    if not os.path.lexists(path):
        return False
    if not path.is_dir() or (_entries(path) and not overwrite):
        raise InputError(f"{kind} {shown(name)} exists and is not an empty folder: choose a new one")
    return True


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _entries(path: Path) -> set[Path]:
    """Return what a folder holds besides what is being filled in it, or was by a run that was killed."""
    return set(path.iterdir()) - set(left_over(path / path.name))


def _move_in(partial: Path, path: Path) -> None:
    for child in sorted(partial.iterdir(), key=lambda child: child.suffix in LAST):
        child.replace(path / child.name)


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename; a folder that is replaced goes when the new one is there."""
    if not path.exists():
        partial.replace(path)
        return
    old = new_name(path)
    path.rename(old)
    try:
        partial.replace(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
