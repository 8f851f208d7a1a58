"""Sinks: what is given each result with its frame. Any callable will do; those that write outputs also close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from avgn.runtime.arrays import Pixels
from avgn.runtime.result import Result

ResultSink = Callable[[Result, Pixels], None]


class Sink(Protocol):
    """Takes one frame's result with its picture [H, W, 3] uint8 after the other."""

    def __call__(self, result: Result, rgb: Pixels) -> None: ...

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the output; after an interrupt it ends at the last frame that came."""
        ...

    def hurry(self) -> None:
        """Stop waiting for whoever reads the output: the run is to end."""
        ...

    def abort(self) -> None:
        """Leave nothing behind."""
        ...
