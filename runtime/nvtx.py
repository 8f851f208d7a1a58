"""Stages of the runtime as NVTX ranges, timed."""

from __future__ import annotations

import time
from types import ModuleType, TracebackType

try:
    import nvtx
except ImportError:
    nvtx = None
_nvtx: ModuleType | None = nvtx


class Stage:
    """One timed range; `ms` holds its milliseconds afterwards."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ms = 0.0
        self._start = 0.0

    def __enter__(self) -> Stage:
        if _nvtx is not None:
            _nvtx.push_range(self.name)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ms = 1000 * (time.perf_counter() - self._start)
        if _nvtx is not None:
            _nvtx.pop_range()


def stage(name: str) -> Stage:
    """A context manager: an NVTX range called `name` (none when nvtx is missing) and its milliseconds."""
    return Stage(name)
