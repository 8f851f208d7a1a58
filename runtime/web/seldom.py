"""Things that strangers make happen as often as they like, said as seldom as a log can bear."""

from __future__ import annotations

import logging
import threading
import time as clock

# seconds between two lines about the same thing, and how many things are remembered
PAUSE = 10.0
MOST = 1000


class Seldom:
    """Counts what happens, and says when it is time for a line about it."""

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause = pause
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}

    def count(self, what: str) -> int:
        """Return how often it has happened since the last line about it, if it is time for another, else 0."""
        now = clock.monotonic()
        with self._lock:
            said, times = self._seen.pop(what, (float("-inf"), 0))
            due = now - said >= self._pause
            self._seen[what] = (now, 0) if due else (said, times + 1)
            while len(self._seen) > MOST:
                del self._seen[next(iter(self._seen))]
        return times + 1 if due else 0


class Quiet(logging.Filter):
    """Lets a library's line about a request pass once in a while, and never with its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._seldom = Seldom()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is passed on."""
        times = self._seldom.count(str(record.msg))
        if times and record.exc_info:
            error = record.exc_info[1]
            record.msg = f"{str(record.msg).strip()} ({type(error).__name__})"
            record.exc_info = record.exc_text = None
        return times > 0
