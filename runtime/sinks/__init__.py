"""Sinks: plain callables (result, rgb) that also close."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from avgn.runtime.result import Result


class Sink(Protocol):
    """Takes one frame's result with its picture [H, W, 3] uint8 after the other."""

    def __call__(self, result: Result, rgb: npt.NDArray[np.uint8]) -> None: ...

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the output; after an interrupt it ends at the last frame that came."""
        ...

    def hurry(self) -> None:
        """Stop waiting for whoever reads the output: the run is to end."""
        ...

    def abort(self) -> None:
        """Leave nothing behind."""
        ...
