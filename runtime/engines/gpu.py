"""The NVIDIA GPU of this machine, found through its driver alone."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache

MAJOR, MINOR = 75, 76
NAME_LENGTH = 100


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first device: its name and compute capability."""

    name: str
    capability: tuple[int, int]

    @property
    def target(self) -> str:
        """As bundles write it: sm_89."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@lru_cache(maxsize=1)
def find_gpu() -> Gpu | str:
    """Return the first NVIDIA GPU, or why there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver"
    if (status := driver.cuInit(0)) != 0:
        return f"the NVIDIA driver does not start (error {status})"
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return "this machine has no NVIDIA GPU"
    driver.cuDeviceGet(ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(NAME_LENGTH)
    driver.cuDeviceGetName(name, NAME_LENGTH, device)
    found = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        found.append(value.value)
    return Gpu(name=name.value.decode("utf-8", "replace"), capability=(found[0], found[1]))
