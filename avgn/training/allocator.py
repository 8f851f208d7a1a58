"""The C library keeps the memory that training on the CPU frees.

A step frees and asks again for the same few hundred large tensors. By default glibc gives each back to the system,
which has to clear its pages again: an eighth of a step's time with `avgn-resnet18` (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import platform

# malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make this process serve large tensors from memory that it already has; False where malloc is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # a preloaded allocator has no such options, and says 0
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
