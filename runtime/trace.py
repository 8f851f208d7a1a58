"""Every stage on a time line: a file that chrome://tracing and ui.perfetto.dev open."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from avgn.runtime.outputs import TextOutput

_active: Trace | None = None


class Trace(TextOutput):
    """Writes stages as they end, in the trace event format; the file appears on close."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._lock = threading.Lock()
        self._zero = time.perf_counter()
        self._threads: set[int] = set()
        self._any = False
        self.write('{"displayTimeUnit":"ms","traceEvents":[\n')

    def add(self, name: str, begin: float, end: float) -> None:
        """Record a stage of the calling thread, in seconds of time.perf_counter."""
        thread = threading.current_thread()
        number = thread.native_id or 0
        common = {"pid": os.getpid(), "tid": number}
        with self._lock:
            if self.closed:
                return
            if number not in self._threads:
                self._threads.add(number)
                self._event({"ph": "M", "name": "thread_name", "args": {"name": thread.name}, **common})
            times = {"ts": round(1e6 * (begin - self._zero), 1), "dur": round(1e6 * (end - begin), 1)}
            self._event({"ph": "X", "cat": "avgn", "name": name, **times, **common})

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file."""
        with self._lock:
            if not self.closed:
                self.write("\n]}\n")
            super().close(interrupted=interrupted)

    def _event(self, event: dict[str, object]) -> None:
        self.write((",\n" if self._any else "") + json.dumps(event, separators=(",", ":")))
        self._any = True


def record(name: str, begin: float, end: float) -> None:
    """Put a stage on the time line that is being written, if one is; times of time.perf_counter in seconds."""
    if _active is not None:
        _active.add(name, begin, end)


@contextmanager
def tracing(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Write every stage of this process to `path` meanwhile (None: nothing). One at a time.

    Raises InputError when the file can't be written; an interrupt keeps what was recorded, an error leaves nothing.
    """
    global _active
    if path is None:
        yield
        return
    trace = Trace(path)
    _active = trace
    try:
        yield
    except KeyboardInterrupt:
        _active = None
        trace.close(interrupted=True)
        raise
    except BaseException:
        _active = None
        trace.abort()
        raise
    _active = None
    trace.close()
