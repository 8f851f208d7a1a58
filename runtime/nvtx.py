"""Stages of the runtime as NVTX ranges, timed, and on the time line where one is written."""

from __future__ import annotations

import time
from functools import lru_cache
from types import ModuleType, TracebackType

from avgn.runtime.trace import record


@lru_cache(maxsize=1)
def _library() -> ModuleType | None:
    try:
        import nvtx
    except ImportError:
        return None
    module: ModuleType = nvtx
    return module


class Stage:
    """One timed range; `ms` holds its milliseconds afterwards."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ms = 0.0
        self._start = 0.0

    def __enter__(self) -> Stage:
        if (library := _library()) is not None:
            library.push_range(self.name)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.perf_counter()
        self.ms = 1000 * (end - self._start)
        record(self.name, self._start, end)
        if (library := _library()) is not None:
            library.pop_range()


def stage(name: str) -> Stage:
    """Return a context manager: an NVTX range called `name` (none when nvtx is missing) and its milliseconds."""
    return Stage(name)
