"""Several outputs as one sink."""

from __future__ import annotations

import logging
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from avgn.runtime.interrupts import shield
from avgn.runtime.outputs.reasons import shown
from avgn.runtime.result import Result
from avgn.runtime.sinks import Sink

log = logging.getLogger("avgn.runtime")


class Together:
    """Hands each result to every output. A reader that leaves ends its own output; with the last one the run ends."""

    def __init__(self) -> None:
        self._all: list[Sink] = []
        self._left: list[Sink] = []
        self._has_results = False

    def add(self, sink: Sink) -> None:
        """Add an output; it is finished or removed with the others."""
        self._all.append(sink)
        self._left.append(sink)

    def __call__(self, result: Result, rgb: npt.NDArray[np.uint8]) -> None:
        """Raises BrokenPipeError when nobody reads any output any more."""
        self._has_results = True
        for sink in tuple(self._left):
            try:
                sink(result, rgb)
            except BrokenPipeError as error:
                self._drop(sink, error)

    def hurry(self) -> None:
        """Stop waiting for whoever reads: the run is to end."""
        for sink in self._left:
            sink.hurry()

    def close(self, *, interrupted: bool = False) -> None:
        """Finish every output before an interrupt is raised; one before the first result leaves nothing behind."""
        if interrupted and not self._has_results:
            self.abort()
            return
        with shield():
            for sink in tuple(self._left):
                try:
                    sink.close(interrupted=interrupted)
                except BrokenPipeError as error:
                    self._drop(sink, error)

    def abort(self) -> None:
        """Leave nothing behind; what is finished has nothing left to abort."""
        for sink in self._all:
            with suppress(Exception):
                sink.abort()

    def _drop(self, sink: Sink, error: BrokenPipeError) -> None:
        sink.abort()
        self._left.remove(sink)
        if not self._left:
            raise error
        log.warning("the reader of %s has gone: the other outputs go on", shown(error.filename or "an output"))
