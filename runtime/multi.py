"""Many streams on one engine: their frames share batches of the image half, their windows batches of the audio half.

Three threads, one per half and one for decisions, so that all three overlap; everything shared is guarded by one lock,
which is never held while an engine runs. A stream's state is touched by nobody else, so streams can't influence each
other's results.
"""

from __future__ import annotations

import logging
import threading
import time as clock
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.engines.base import Engine, check_engine
from avgn.runtime.frame_queue import FrameQueue, Waiting
from avgn.runtime.nvtx import stage
from avgn.runtime.patches import hear
from avgn.runtime.result import Result
from avgn.runtime.stream import AudioWindow, StreamLocalizer
from avgn.runtime.stream_handle import StreamHandle

log = logging.getLogger("avgn.runtime")

# batches that wait for their decisions
SEEN = 2
# seconds between two looks of a thread that waits
POLL = 0.05

OnResult = Callable[[Result, Any], None]


@dataclass(frozen=True, eq=False)
class _Stream:
    """What the threads know of a stream: its rules and sound, its line of frames, and who is given its results."""

    name: str
    core: StreamLocalizer
    queue: FrameQueue
    on_result: OnResult

    def wanted_window(self, now: float) -> int | None:
        return self.queue.wanted_window(self.core.complete, self.core.state.clock.closed, now)


_Chosen = tuple[_Stream, Waiting, AudioWindow]


class MultiStream:
    """Runs an engine for several streams. Use as a context manager, or `close` it."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int = 8,
        max_delay: float = 0.004,
        decision: DecisionConfig | None = None,
    ) -> None:
        """`max_batch`: frames that go through the image half together; `max_delay`: seconds that a frame waits for
        others to fill a batch. Raises ValueError for values below 1 and 0, TypeError for what is no Engine.
        """
        check_engine(engine)
        if max_batch < 1 or max_delay < 0:
            raise ValueError(f"max_batch must be at least 1 and max_delay at least 0, got {max_batch} and {max_delay}")
        self.engine = engine
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._decision = decision
        self._wake = threading.Condition()
        # in the order of their turns: who was served longest ago comes first
        self._streams: list[_Stream] = []
        self._stopped = False
        self._error: BaseException | None = None
        self._seen: deque[tuple[list[_Chosen], dict[str, Any], float]] = deque()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"avgn-{name}", daemon=True)
            for name, work in (
                ("audio", self._audio_loop),
                ("image", self._image_loop),
                ("decide", self._decide_loop),
            )
        ]
        self._warm_up()
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> MultiStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(
        self, on_result: OnResult, *, name: str = "", lossless: bool = False, max_wait: float = 0.25
    ) -> StreamHandle:
        """Return a new stream. `on_result(result, payload)` is called in frame order from the engine's thread: be
        quick.

        `lossless`: no frame is dropped, `push_frame` waits instead. A frame whose sound does not come within
        `max_wait` seconds takes the sound that is there (a lossless stream waits for it).
        """
        core = StreamLocalizer(self.engine, decision=self._decision, mode="live")
        queue = FrameQueue(lossless=lossless, max_wait=float("inf") if lossless else max_wait)
        stream = _Stream(name, core, queue, on_result)
        with self._wake:
            if self._stopped:
                raise RuntimeError("this MultiStream was closed: make another one")
            self._streams.append(stream)
        return StreamHandle(name, core, queue, self._wake, partial(self._leave, stream))

    def _leave(self, stream: _Stream) -> None:
        """Forget a stream that was closed (under the lock) when its frames have landed."""
        if threading.current_thread() not in self._threads:
            self._wake.wait_for(lambda: not stream.queue.is_flying, 5.0)
        # it may have been closed before
        if stream in self._streams:
            self._streams.remove(stream)

    @property
    def error(self) -> BaseException | None:
        """What stopped the engine's threads, if anything did."""
        return self._error

    def close(self) -> None:
        """Stop the threads; streams still open are closed."""
        self._stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def _warm_up(self) -> None:
        """Run both halves once in a full batch: an engine that compiles for it would do so amid the streams."""
        info = self.engine.info
        waveform = np.zeros((self._max_batch, info.window_samples), np.float32)
        sources = self.engine.run_audio(waveform)["sources"]
        self.engine.run_image(np.zeros((self._max_batch, *info.image_size, 3), np.uint8), sources)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            log.exception("the engine failed: no stream gets results any more")
            self._error = error
            self._stop()

    def _stop(self) -> None:
        with self._wake:
            self._stopped = True
            for stream in self._streams:
                stream.queue.abandon()
            self._wake.notify_all()

    # the audio half

    def _audio_loop(self) -> None:
        while True:
            with self._wake:
                chosen = self._wanted_windows()
                while not chosen and not self._stopped:
                    self._wake.wait(POLL)
                    chosen = self._wanted_windows()
                if self._stopped:
                    return
                windows = []
                for stream, index in chosen:
                    stream.queue.hear()
                    windows.append(stream.core.cut_window(index))
            with stage("audio") as timer:
                heard = hear(self.engine, windows)
            ms = timer.ms / len(chosen)
            with self._wake:
                for at, (stream, index) in enumerate(chosen):
                    sources, prob = heard["sources"][at], heard["audio_prob"][at]
                    window = AudioWindow.of(index, windows[at].waveform, sources, prob, ms)
                    stream.queue.heard(window, clock.monotonic())
                self._wake.notify_all()

    def _wanted_windows(self) -> list[tuple[_Stream, int]]:
        now = clock.monotonic()
        wanted = [(stream, stream.wanted_window(now)) for stream in self._streams]
        return [(stream, index) for stream, index in wanted if index is not None][: self._max_batch]

    # the image half

    def _image_loop(self) -> None:
        while True:
            with self._wake:
                chosen = self._next_batch()
                while not chosen and not self._stopped:
                    self._wake.wait(POLL)
                    chosen = self._next_batch()
                if self._stopped:
                    return
            with stage("image") as timer:
                seen = self.engine.run_image(
                    np.stack([waiting.frame.image for _, waiting, _ in chosen]),
                    np.stack([window.sources for _, _, window in chosen]),
                )
            with self._wake:
                self._seen.append((chosen, seen, timer.ms / len(chosen)))
                self._wake.notify_all()

    def _next_batch(self) -> list[_Chosen]:
        """Frames whose windows were heard: one a stream in turn, then further ones where streams are lossless.

        A stream that was served goes to the end of the line, so that one which is ready waits at most until each
        other one was served once, whichever of them have a frame at the moment.
        """
        ready = self._ready()
        if not ready or len(self._seen) >= SEEN:
            return []
        # others may be about to come
        deadline = clock.monotonic() + self._max_delay
        others = sum(not stream.queue.is_closed for stream in self._streams)
        while len(ready) < min(self._max_batch, others) and not self._stopped:
            left = deadline - clock.monotonic()
            if left <= 0:
                break
            self._wake.wait(left)
            ready = self._ready()
        chosen: list[_Chosen] = []
        now = clock.monotonic()
        while ready and len(chosen) < self._max_batch:
            stream = ready.pop(0)
            chosen.append((stream, *stream.queue.take(now)))
            self._streams.remove(stream)
            self._streams.append(stream)
            if stream.queue.lossless and stream.queue.is_ready(now):
                ready.append(stream)
        return chosen

    def _ready(self) -> list[_Stream]:
        now = clock.monotonic()
        return [stream for stream in self._streams if stream.queue.is_ready(now)]

    # decisions

    def _decide_loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._seen or self._stopped)
                if self._stopped:
                    return
                chosen, seen, ms = self._seen.popleft()
                self._wake.notify_all()
            for at, (stream, waiting, window) in enumerate(chosen):
                self._decide(stream, waiting, window, seen["maps"][at], seen["visual_prob"][at], ms)
            with self._wake:
                for stream, _, _ in chosen:
                    stream.queue.land()
                self._wake.notify_all()

    def _decide(
        self, stream: _Stream, waiting: Waiting, window: AudioWindow, maps: Floats, visual_prob: Floats, ms: float
    ) -> None:
        if stream.queue.is_closed:
            return
        result = stream.core.decide(waiting.frame, window, maps, visual_prob, window.ms, ms)
        stream.queue.stats.results += 1
        try:
            stream.on_result(replace(result, dropped=waiting.lost), waiting.payload)
        except Exception:
            log.exception("what stream %r does with its results failed: the stream is closed", stream.name)
            with self._wake:
                stream.queue.close()
                self._leave(stream)
