"""A one-line progress display that appears on a terminal alone."""

from __future__ import annotations

import sys
import time
from types import TracebackType

INTERVAL = 0.2
WIDTH = 72


class Progress:
    """`with Progress("rendering", 100) as progress: progress(done)`; also called as progress(done, total)."""

    def __init__(self, title: str, total: int | None = None) -> None:
        self.title = title
        self.total = total
        self.shown = 0.0
        self.visible = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int | None = None) -> None:
        self.total = total or self.total
        now = time.monotonic()
        if not self.visible or now - self.shown < INTERVAL:
            return
        self.shown = now
        of = "" if self.total is None else f" of {self.total} ({100 * done // max(1, self.total)} %)"
        sys.stderr.write(f"\r{self.title}: {done}{of}".ljust(WIDTH))
        sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.visible and self.shown:
            sys.stderr.write("\r" + " " * WIDTH + "\r")
            sys.stderr.flush()
