"""One stream of a `MultiStream`: its queue of frames, the windows it has heard, and which of them go next."""

from __future__ import annotations

import threading
import time as clock
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from avgn.runtime.arrays import Pixels
from avgn.runtime.result import Result
from avgn.runtime.stream import AudioWindow, Pending, StreamLocalizer

if TYPE_CHECKING:
    from avgn.runtime.multi import MultiStream

OnResult = Callable[[Result, Any], None]

# windows of a stream that are kept for frames still on their way
KEPT_WINDOWS = 8
# frames in line of one stream: half a second at 30 frames/s
QUEUED = 15
# seconds after which a frame that could be run gives way to a newer one: a frame's time at 30 frames/s
STALE = 0.033
# the same for what came in a stream's first moments: what was read while it was connected comes at once
STALE_FIRST = 0.25
BURST = 0.1


@dataclass(eq=False)
class Waiting:
    """A frame in line: what the caller attached to it, when it arrived and when its window was heard (monotonic).

    `lost`: how many frames were dropped between it and the one run before.
    """

    frame: Pending
    payload: Any
    arrived: float
    ready: float | None = None
    lost: int = 0


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
        # held while sound is prepared; always taken before the lock of all streams
        self._sound_lock = threading.Lock()
        self._max_wait = max_wait
        self._queue: deque[Waiting] = deque()
        self._windows: dict[int, AudioWindow] = {}
        self._hearing: int | None = None
        self._lost = 0
        self._flying = 0
        # when the first frame came
        self._begin = float("inf")
        self._closed = False
        self._ended = False

    def push_audio(self, samples: npt.NDArray[Any], rate: int, time: float) -> None:
        """Take sound [T] or [T, C] at `rate` Hz whose first sample is at `time` seconds. Nothing is dropped."""
        sound = self._core.state.clock
        with self._sound_lock:
            self._refuse_closed()
            # resampling takes time that no other stream has to wait for
            pieces = sound.prepare(samples, rate, time)
            with self._multi._wake:
                self._refuse_closed()
                # a stream that is connected again may have sound after all
                sound.closed = self._ended
                sound.add(pieces)
                self._multi._wake.notify_all()

    def end_audio(self) -> None:
        """Say that no more sound comes: frames stop waiting for it."""
        with self._sound_lock, self._multi._wake:
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
            self._begin = min(self._begin, waiting.arrived)
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
            self._lossless = self._ended = True
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
            stale = STALE_FIRST if waiting.arrived - self._begin <= BURST else STALE
            if self._lossless or waiting.ready is None or now - waiting.ready <= stale:
                return found
        return found

    def _take(self) -> tuple[Waiting, AudioWindow]:
        at = self._ready_at()
        assert at is not None
        self._drop(at)
        waiting = self._queue.popleft()
        waiting.lost, self._lost = self._lost, 0
        return waiting, self._windows[waiting.frame.window]
