"""Memory that is short, told from files that ask for too much; and what is freed but still held by the allocator."""

from __future__ import annotations

import ctypes
import mmap
from functools import lru_cache
from typing import Any

# what libraries say where they get no memory, or no thread for want of it
WORDS = (
    "bad_alloc",
    "Cannot allocate memory",
    "Failed to allocate memory",
    "Insufficient memory",
    "Resource temporarily unavailable",
    "can't alloc",
    "can't start new thread",
    "failed to map segment",
)
# bytes that are to be had wherever memory is not short
SPARE = 256 << 20


def is_short(error: BaseException) -> bool:
    """Return whether an error came of memory that is short here.

    A damaged file may ask for more than any machine has, which sounds the same: then there is some to spare.
    """
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in WORDS):
        return False
    return not has_room(SPARE)


def has_room(size: int) -> bool:
    """Return whether so many bytes are to be had."""
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError, ValueError):
        return False
    return True


def refuse_shortage(error: BaseException, needed: int = 0) -> None:
    """Raise MemoryError where an error came of memory that is short: no file is to blame for it.

    `needed`: bytes without which the error is not believed, whatever it says.
    """
    if is_short(error) or (needed and not has_room(needed)):
        raise MemoryError(" ".join(str(error).split())[:160]) from None


def shortage() -> str:
    """Return the sentence about memory that is short."""
    limit = ""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        limit = "" if most == resource.RLIM_INFINITY else f" (ulimit -v allows {most / 1e9:.1f} GB)"
    except ImportError:
        pass
    return f"there is not enough memory here{limit}: raise the limit, end other programs or take smaller files"


@lru_cache(maxsize=1)
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def give_back() -> None:
    """Hand free memory back to the system (glibc; elsewhere nothing happens).

    Decoders of one connection after the other leave holes that glibc keeps: tens of megabytes within hours.
    """
    if (trim := _trim()) is not None:
        trim(0)
