"""One run at a time writes an output: locks that end with the process that holds them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WAIT_SECONDS = 2.0


def lock(handle: int) -> bool:
    """Return whether this process alone holds the open file or folder; where there are no locks, it is taken on
    trust."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_locked(path: Path) -> bool:
    """Return whether a living process holds it; what its maker left behind is free."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not lock(handle)
    finally:
        os.close(handle)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Processes that begin outputs in a folder take turns, so that two never begin the same one at once."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # a folder that can be written to but not listed
        yield
        return
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        # somebody else may hold the folder for purposes of their own
        while not lock(handle) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        with suppress(OSError):
            os.close(handle)
