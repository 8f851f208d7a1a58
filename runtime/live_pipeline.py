"""A live source through an engine to sinks: capture, both halves and sinks overlap, and nothing grows without bound.

capture thread -> MultiStream (audio and image threads) -> sink thread. Wherever a thread falls behind, the newest
frames are kept and the others counted; sound is not dropped.
"""

from __future__ import annotations

import logging
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from avgn.runtime.arrays import Pixels
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame
from avgn.runtime.multi import MultiStream
from avgn.runtime.result import Result
from avgn.runtime.sinks import ResultSink
from avgn.runtime.sources import Source, State, StateChange

log = logging.getLogger("avgn.runtime")

BEHIND = 4
STOP_SECONDS = 0.9
KEPT_LATENCIES = 10_000


@dataclass(kw_only=True)
class LiveStats:
    """What a pipeline did so far. Latency is from capture to result, in seconds, of the latest results."""

    frames: int = 0
    results: int = 0
    dropped: int = 0
    sink_dropped: int = 0
    audio_seconds: float = 0.0
    losses: int = 0
    first_result_seconds: float | None = None
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))

    def latency(self, quantile: float) -> float:
        """Return a quantile of the latencies in seconds, NaN before the first result."""
        return float(np.quantile(self.latencies, quantile)) if self.latencies else float("nan")


class LivePipeline:
    """Runs a source until it ends or `stop` is called. Use as a context manager, or `start` and `stop`."""

    def __init__(
        self,
        source: Source,
        engine: Engine | MultiStream,
        sinks: Sequence[ResultSink] = (),
        *,
        decision: DecisionConfig | None = None,
        on_state: Callable[[StateChange], None] | None = None,
        on_audio: Callable[[AudioBlock], None] | None = None,
        max_wait: float = 0.25,
    ) -> None:
        """`engine`: one of its own, or a MultiStream that pipelines share (then `decision` is the MultiStream's).

        `sinks` are called with (result, rgb) in frame order from one thread; `on_state` and `on_audio` from the capture
        thread.
        """
        self.source = source
        self.stats = LiveStats()
        self.state: State = "connecting"
        self.reason = ""
        self._sinks = tuple(sinks)
        self._on_state = on_state
        self._on_audio = on_audio
        self._owned = not isinstance(engine, MultiStream)
        self._multi = engine if isinstance(engine, MultiStream) else MultiStream(engine, max_batch=1, decision=decision)
        self._handle = self._multi.open(self._take, name=source.name, max_wait=max_wait)
        self._out: deque[tuple[Result, Pixels]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._finished = False
        self._started = 0.0
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._capture, name="avgn-capture", daemon=True),
            threading.Thread(target=self._sink_loop, name="avgn-sinks", daemon=True),
        ]

    def __enter__(self) -> LivePipeline:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to capture."""
        self._started = clock.monotonic()
        for thread in self._threads:
            thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the source has ended and its results were handed to the sinks; whether that came about.

        Raises what a sink raised, or `on_state` or `on_audio`.
        """
        deadline = None if timeout is None else clock.monotonic() + timeout
        with self._wake:
            ended = self._wake.wait_for(lambda: self._finished or self._error is not None, timeout)
        if ended and self._error is None:
            # the sinks still take what is in line
            self._threads[1].join(None if deadline is None else max(0.0, deadline - clock.monotonic()))
            ended = not self._threads[1].is_alive()
        if self._error is not None:
            raise self._error
        return ended

    def stop(self) -> None:
        """Stop within a second, but for a half that an engine is computing: a MultiStream waits up to 5 s for its own.

        What a blocked source still holds is left to its own time-out.
        """
        deadline = clock.monotonic() + STOP_SECONDS
        self.source.close()
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._handle.close()
        if self._owned:
            self._multi.close()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - clock.monotonic()))

    def _capture(self) -> None:
        try:
            for event in self.source.events():
                if self._stopping:
                    break
                if isinstance(event, StateChange):
                    self._change(event)
                elif isinstance(event, VideoFrame):
                    self.stats.frames += 1
                    self._handle.push_frame(event.rgb, event.time, event)
                elif isinstance(event, AudioBlock):
                    self.stats.audio_seconds += len(event.samples) / event.rate
                    self._handle.push_audio(event.samples, event.rate, event.time)
                    if self._on_audio is not None:
                        self._on_audio(event)
                elif isinstance(event, AudioEnd):
                    self._handle.end_audio()
            if not self._stopping:
                self._handle.finish(10.0)
        except Exception as error:
            # a stream closed under a frame that was on its way is no failure
            if not self._stopping:
                if not isinstance(error, InputError):
                    log.exception("capture from %s failed", self.source.name)
                self._error = self._multi.error or error
                with suppress(Exception):
                    # who is told may be what failed
                    self._change(StateChange(state="ended", reason=str(error)))
        finally:
            with self._wake:
                self._finished = True
                self._wake.notify_all()

    def _change(self, change: StateChange) -> None:
        self.state, self.reason = change.state, change.reason
        self.stats.losses += change.state == "lost"
        if self._on_state is not None:
            self._on_state(change)

    def _take(self, result: Result, payload: Any) -> None:
        """Take a result from the engine's thread: time it, and queue it for the sinks."""
        assert isinstance(payload, VideoFrame)
        now = clock.monotonic()
        if payload.captured is not None:
            self.stats.latencies.append(now - payload.captured)
        if self.stats.first_result_seconds is None:
            self.stats.first_result_seconds = now - self._started
        self.stats.results += 1
        self.stats.dropped += result.dropped
        if not self._sinks:
            return
        with self._wake:
            if len(self._out) >= BEHIND:
                self._out.popleft()
                self.stats.sink_dropped += 1
            self._out.append((replace(result, ms={"decode": payload.ms, **result.ms}), payload.rgb))
            self._wake.notify_all()

    def _sink_loop(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._out or self._stopping or self._finished)
                    if not self._out:
                        return
                    item = self._out.popleft()
                for sink in self._sinks:
                    sink(*item)
        except BaseException as error:
            log.error("a sink failed: %s", error)
            self._error = error
            self.source.close()
            with self._wake:
                self._wake.notify_all()
