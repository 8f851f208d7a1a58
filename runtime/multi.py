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
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.decision import DecisionConfig
from avgn.runtime.engines.base import Engine
from avgn.runtime.nvtx import stage
from avgn.runtime.result import Result
from avgn.runtime.stream import AudioWindow, Pending, StreamLocalizer

Pixels = npt.NDArray[np.uint8]
OnResult = Callable[[Result, Any], None]

log = logging.getLogger("avgn.runtime")

# windows of a stream that are kept for frames still on their way
KEPT_WINDOWS = 8
# frames in line of one stream: half a second at 30 frames/s
QUEUED = 15
# batches that wait for their decisions
SEEN = 2
# seconds after which a frame that could be run gives way to a newer one: a frame's time at 30 frames/s
STALE = 0.033


@dataclass(eq=False)
class Waiting:
    """A frame in line: what the caller attached to it, when it arrived and when its window was heard (monotonic)."""

    frame: Pending
    payload: Any
    arrived: float
    ready: float | None = None


Chosen = tuple["StreamHandle", Waiting, AudioWindow]


@dataclass(kw_only=True)
class StreamStats:
    """Counts of one stream: frames pushed, results given, frames dropped for newer ones, audio windows heard."""

    frames: int = 0
    results: int = 0
    dropped: int = 0
    windows: int = 0


class StreamHandle:
    """One stream of a `MultiStream`. `push_audio` and `push_frame` may be called from any one thread each."""

    def __init__(
        self, multi: MultiStream, name: str, on_result: OnResult, core: StreamLocalizer, lossless: bool, max_wait: float
    ) -> None:
        self.name = name
        self.stats = StreamStats()
        self._multi = multi
        self._on_result = on_result
        self._core = core
        self._lossless = lossless
        self._max_wait = max_wait
        self._queue: deque[Waiting] = deque()
        self._windows: dict[int, AudioWindow] = {}
        self._hearing: int | None = None
        self._lost = 0
        self._flying = 0
        self._closed = False
        self._ended = False

    def push_audio(self, samples: npt.NDArray[Any], rate: int, time: float) -> None:
        """Take sound [T] or [T, C] at `rate` Hz whose first sample is at `time` seconds. Nothing is dropped."""
        with self._multi._wake:
            self._refuse_closed()
            self._core.state.clock.push(samples, rate, time)
            self._multi._wake.notify_all()

    def end_audio(self) -> None:
        """Say that no more sound comes: frames stop waiting for it."""
        with self._multi._wake:
            if not self._core.state.clock.closed:
                self._core.state.clock.close()
            self._multi._wake.notify_all()

    def push_frame(self, rgb: Pixels, time: float, payload: Any = None) -> None:
        """Take a frame [H, W, 3] uint8 at `time` seconds; `payload` comes back with its result.

        A live stream whose engine is behind runs the newest frame and counts those it passes over; a lossless one makes
        the caller wait while its line is full.
        """
        self._refuse_closed()
        frame = self._core.take_frame(rgb, time)
        waiting = Waiting(frame, payload, clock.monotonic())
        with self._multi._wake:
            self.stats.frames += 1
            while self._lossless and len(self._queue) >= QUEUED and not self._closed and not self._multi._stopped:
                self._multi._wake.wait(0.1)
            self._refuse_closed()
            if len(self._queue) >= QUEUED:
                self._drop(1)
            self._queue.append(waiting)
            self._stamp()
            self._multi._wake.notify_all()

    def finish(self, timeout: float | None = None) -> bool:
        """Wait until every frame pushed so far has its result; whether that came about in `timeout` seconds."""
        self.end_audio()
        with self._multi._wake:
            # the last frames are not passed over for newer ones
            self._lossless = True
            return self._multi._wake.wait_for(
                lambda: (not self._queue and not self._flying) or self._closed or self._multi._stopped, timeout
            )

    def close(self) -> None:
        """Leave; no result comes after this returns."""
        with self._multi._wake:
            self._closed = True
            self._queue.clear()
            self._multi._wake.notify_all()
            if threading.current_thread() not in self._multi._threads:
                self._multi._wake.wait_for(lambda: not self._flying or self._multi._stopped, 5.0)
            if self in self._multi._streams:
                self._multi._streams.remove(self)

    def warnings(self) -> list[str]:
        """Sentences about the sound so far that the user should know."""
        return self._core.warnings()

    def _refuse_closed(self) -> None:
        if self._closed or self._multi._stopped:
            raise RuntimeError(f"stream {self.name!r} was closed: open another one")

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()
        self._lost += count
        self.stats.dropped += count

    def _can_hear(self, waiting: Waiting, now: float) -> bool:
        """Whether a frame's sound is there, or has kept it waiting for too long."""
        sound = self._core.state.clock
        index = waiting.frame.window
        there = sound.closed or index <= 0 or index * self._core.info.hop_samples <= sound.end
        return there or now - waiting.arrived >= self._max_wait

    def _wanted_window(self, now: float) -> int | None:
        """The window to hear next: the one that the next frame needs, else the latest that is complete."""
        if self._hearing is not None or self._closed:
            return None
        waiting = list(self._queue)[:1] if self._lossless else list(self._queue)
        needed = [w.frame.window for w in waiting if w.frame.window not in self._windows and self._can_hear(w, now)]
        if needed:
            return max(needed)
        if self._lossless or self._queue:
            return None
        index = self._core.state.clock.end // self._core.info.hop_samples
        return index if index > max(self._windows, default=0) else None

    def _stamp(self) -> None:
        """Note since when frames could be run."""
        now = clock.monotonic()
        for waiting in self._queue:
            if waiting.ready is None and waiting.frame.window in self._windows:
                waiting.ready = now

    def _ready_at(self) -> int | None:
        """The place in line of the frame to run: the first whose window was heard, unless the engine is behind.

        A live stream passes over frames that have waited for the engine, not for their sound, as long as a newer one
        can be run.
        """
        if self._closed:
            return None
        now = clock.monotonic()
        found: int | None = None
        for at, waiting in enumerate(self._queue):
            if waiting.frame.window not in self._windows:
                if self._lossless:
                    return found
                continue
            found = at
            if self._lossless or waiting.ready is None or now - waiting.ready <= STALE:
                return found
        return found

    def _take(self) -> tuple[Waiting, AudioWindow]:
        at = self._ready_at()
        assert at is not None
        self._drop(at)
        waiting = self._queue.popleft()
        return waiting, self._windows[waiting.frame.window]


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
        others to fill a batch. Raises ValueError for values below 1 and 0.
        """
        if max_batch < 1 or max_delay < 0:
            raise ValueError(f"max_batch must be at least 1 and max_delay at least 0, got {max_batch} and {max_delay}")
        self.engine = engine
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._decision = decision
        self._wake = threading.Condition()
        self._streams: list[StreamHandle] = []
        self._turn = 0
        self._stopped = False
        self._error: BaseException | None = None
        self._seen: deque[tuple[list[Chosen], dict[str, Any], float]] = deque()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"avgn-{name}", daemon=True)
            for name, work in (
                ("audio", self._audio_loop),
                ("image", self._image_loop),
                ("decide", self._decide_loop),
            )
        ]
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
        """A new stream. `on_result(result, payload)` is called in frame order from the engine's thread: be quick.

        `lossless`: no frame is dropped, `push_frame` waits instead. A frame whose sound does not come within
        `max_wait` seconds takes the sound that is there (a lossless stream waits for it).
        """
        core = StreamLocalizer(self.engine, decision=self._decision, mode="live")
        handle = StreamHandle(self, name, on_result, core, lossless, float("inf") if lossless else max_wait)
        with self._wake:
            if self._stopped:
                raise RuntimeError("this MultiStream was closed: make another one")
            self._streams.append(handle)
        return handle

    @property
    def error(self) -> BaseException | None:
        """What stopped the engine's threads, if anything did."""
        return self._error

    def close(self) -> None:
        """Stop both threads; streams still open are closed."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            log.exception("the engine failed: no stream gets results any more")
            with self._wake:
                self._error = error
                self._stopped = True
                self._wake.notify_all()

    # the audio half

    def _audio_loop(self) -> None:
        while True:
            with self._wake:
                chosen = self._wanted_windows()
                while not chosen and not self._stopped:
                    self._wake.wait(0.05)
                    chosen = self._wanted_windows()
                if self._stopped:
                    return
                waveforms = []
                for handle, index in chosen:
                    handle._hearing = index
                    waveforms.append(handle._core.cut_window(index))
            with stage("audio") as timer:
                heard = self.engine.run_audio(np.stack(waveforms))
            with self._wake:
                for at, (handle, index) in enumerate(chosen):
                    handle._hearing = None
                    handle._windows[index] = AudioWindow.of(
                        index,
                        waveforms[at],
                        heard["sources"][at],
                        heard["audio_prob"][at],
                        timer.ms / len(chosen),
                    )
                    handle.stats.windows += 1
                    while len(handle._windows) > KEPT_WINDOWS:
                        del handle._windows[next(iter(handle._windows))]
                    handle._stamp()
                self._wake.notify_all()

    def _wanted_windows(self) -> list[tuple[StreamHandle, int]]:
        now = clock.monotonic()
        wanted = [(handle, handle._wanted_window(now)) for handle in self._streams]
        return [(handle, index) for handle, index in wanted if index is not None][: self._max_batch]

    # the image half

    def _image_loop(self) -> None:
        while True:
            with self._wake:
                chosen = self._next_batch()
                while not chosen and not self._stopped:
                    self._wake.wait(0.05)
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

    def _next_batch(self) -> list[Chosen]:
        """Frames whose windows were heard: one a stream in turn, then further ones where streams are lossless."""
        ready = self._ready()
        if not ready or len(self._seen) >= SEEN:
            return []
        # others may be about to come
        deadline = clock.monotonic() + self._max_delay
        others = sum(not handle._closed for handle in self._streams)
        while len(ready) < min(self._max_batch, others) and not self._stopped:
            left = deadline - clock.monotonic()
            if left <= 0:
                break
            self._wake.wait(left)
            ready = self._ready()
        order = ready[self._turn % max(1, len(ready)) :] + ready[: self._turn % max(1, len(ready))]
        self._turn += 1
        chosen: list[Chosen] = []
        while order and len(chosen) < self._max_batch:
            handle = order.pop(0)
            chosen.append((handle, *handle._take()))
            handle._flying += 1
            if handle._lossless and handle._ready_at() is not None:
                order.append(handle)
        return chosen

    def _ready(self) -> list[StreamHandle]:
        return [handle for handle in self._streams if handle._ready_at() is not None]

    # decisions

    def _decide_loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._seen or self._stopped)
                if self._stopped:
                    return
                chosen, seen, ms = self._seen.popleft()
                self._wake.notify_all()
            for at, (handle, waiting, window) in enumerate(chosen):
                self._decide(handle, waiting, window, seen["maps"][at], seen["visual_prob"][at], ms)
            with self._wake:
                for handle, _, _ in chosen:
                    handle._flying -= 1
                self._wake.notify_all()

    def _decide(
        self, handle: StreamHandle, waiting: Waiting, window: AudioWindow, maps: Any, visual_prob: Any, ms: float
    ) -> None:
        if handle._closed:
            return
        with self._wake:
            lost, handle._lost = handle._lost, 0
        result = handle._core.decide(waiting.frame, window, maps, visual_prob, window.ms, ms)
        handle.stats.results += 1
        try:
            handle._on_result(replace(result, dropped=lost), waiting.payload)
        except Exception:
            log.exception("what stream %r does with its results failed: the stream is closed", handle.name)
            with self._wake:
                handle._closed = True
                # it may have closed its stream itself before it failed
                if handle in self._streams:
                    self._streams.remove(handle)
