"""A visitor's stream from one reset to the next, and the work on what was sent for it, off the event loop."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from avgn.runtime.multi import MultiStream
from avgn.runtime.result import Result
from avgn.runtime.stream_handle import StreamHandle
from avgn.runtime.web import wire
from avgn.runtime.web.inbox import Jpeg, Samples
from avgn.runtime.web.load import Budget, Load
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.wire import WireError


@dataclass(eq=False)
class Sent:
    """What comes back with a result: its picture, whose stream it was, how many were passed over before it."""

    frame: Jpeg
    run: Run
    lost: int


class Run:
    """Called from any one worker at a time, but for `close`, which any thread may call."""

    def __init__(
        self, multi: MultiStream, load: Load, budget: Budget, metrics: Metrics, on_result: Callable[[Result, Any], None]
    ) -> None:
        self._multi = multi
        self._load = load
        self._budget = budget
        self._metrics = metrics
        self._on_result = on_result
        self._lock = threading.Lock()
        self._stream: StreamHandle | None = None
        self._is_closed = False

    def work(self, samples: list[Samples], frame: Jpeg | None, lost: int, asked: float) -> bool:
        """Take sound and a picture into the stream, as `asked` for at a moment (monotonic).

        False for a picture that is passed over.

        Raises WireError for what can't be taken.
        """
        self._load.note(clock.monotonic() - asked)
        try:
            stream = self._open()
            for piece in samples:
                if piece.samples.size:
                    stream.push_audio(piece.samples, piece.rate, piece.at)
                else:
                    stream.end_audio()
            return frame is None or self._see(stream, frame, lost)
        except RuntimeError:
            # closed under our hands: by a reset, or with everything
            if self._is_closed:
                return True
            failed = "the engine failed" if self._multi.error is not None else "the server is stopping"
            raise WireError(wire.FAILED, failed) from None

    def close(self) -> None:
        """Leave; no result comes after this returns."""
        with self._lock:
            self._is_closed = True
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _open(self) -> StreamHandle:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this run was closed")
            if self._stream is None:
                self._stream = self._multi.open(self._on_result, name="visitor")
            return self._stream

    def _see(self, stream: StreamHandle, frame: Jpeg, lost: int) -> bool:
        checked = wire.check_jpeg(frame.jpeg)
        if not self._budget.take(checked.width * checked.height):
            return False
        self._metrics.frames.inc()
        stream.push_frame(wire.decode(checked), frame.at, Sent(frame, self, lost))
        return True
