"""Frames of one live stream that wait for their sound or for the engine, and which of them goes next.

It owns no lock and no clock: whoever shares it between threads holds one, and says what time it is (`now`, monotonic
seconds).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from avgn.runtime.stream import AudioWindow, Pending

# windows that are kept for frames still on their way
KEPT_WINDOWS = 8
# frames in line: half a second at 30 frames/s
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


@dataclass(kw_only=True)
class StreamStats:
    """Counts of one stream: frames pushed, results given, frames dropped for newer ones, audio windows heard."""

    frames: int = 0
    results: int = 0
    dropped: int = 0
    windows: int = 0


class FrameQueue:
    """The line of one stream. A frame is `put`, its window `heard`, then it is `take`n, and `land`s with its result."""

    def __init__(self, *, lossless: bool, max_wait: float) -> None:
        """`lossless`: no frame gives way to a newer one; `max_wait`: seconds that a frame waits for its sound."""
        self.stats = StreamStats()
        self.lossless = lossless
        self.is_closed = False
        self._max_wait = max_wait
        self._waiting: deque[Waiting] = deque()
        self._windows: dict[int, AudioWindow] = {}
        self._is_hearing = False
        self._lost = 0
        self._flying = 0
        # when the first frame came
        self._begin = float("inf")

    @property
    def is_full(self) -> bool:
        """Whether the next frame would push the oldest one out."""
        return len(self._waiting) >= QUEUED

    @property
    def is_flying(self) -> bool:
        """Whether a frame was taken that has not landed."""
        return self._flying > 0

    @property
    def is_done(self) -> bool:
        """Whether every frame was dropped or has landed."""
        return not self._waiting and not self._flying

    def put(self, frame: Pending, payload: Any, now: float) -> None:
        """Add a frame that arrived `now`; in a full line it takes the place of the oldest one."""
        self.stats.frames += 1
        self._begin = min(self._begin, now)
        if self.is_full:
            self._drop(1)
        waiting = Waiting(frame, payload, now)
        if frame.window in self._windows:
            waiting.ready = now
        self._waiting.append(waiting)

    def wanted_window(self, complete: int, ended: bool, now: float) -> int | None:
        """Return the window to hear next: the one that the next frame needs, else the latest that is complete.

        `complete`: the last window up to which the sound has come; `ended`: no more comes.
        """
        if self._is_hearing or self.is_closed:
            return None

        def can_hear(waiting: Waiting) -> bool:
            there = ended or waiting.frame.window <= max(0, complete)
            return there or now - waiting.arrived >= self._max_wait

        waiting = list(self._waiting)[:1] if self.lossless else list(self._waiting)
        needed = [each.frame.window for each in waiting if each.frame.window not in self._windows and can_hear(each)]
        if needed:
            return max(needed)
        if self.lossless or self._waiting:
            return None
        return complete if complete > max(self._windows, default=0) else None

    def hear(self) -> None:
        """Note that a window is being heard: one at a time."""
        self._is_hearing = True

    def heard(self, window: AudioWindow, now: float) -> None:
        """Take what the audio half gave: frames of this window can be run from `now` on."""
        self._is_hearing = False
        self._windows[window.index] = window
        self.stats.windows += 1
        while len(self._windows) > KEPT_WINDOWS:
            del self._windows[next(iter(self._windows))]
        for waiting in self._waiting:
            if waiting.ready is None and waiting.frame.window in self._windows:
                waiting.ready = now

    def is_ready(self, now: float) -> bool:
        """Return whether a frame can be run."""
        return self._next(now) is not None

    def take(self, now: float) -> tuple[Waiting, AudioWindow]:
        """Take out the frame to run, with its window; those before it are dropped."""
        at = self._next(now)
        assert at is not None
        self._drop(at)
        waiting = self._waiting.popleft()
        waiting.lost, self._lost = self._lost, 0
        self._flying += 1
        return waiting, self._windows[waiting.frame.window]

    def land(self) -> None:
        """Note that a frame that was taken has its result."""
        self._flying = max(0, self._flying - 1)

    def close(self) -> None:
        """Let go of all that wait; frames that were taken still land."""
        self.is_closed = True
        self._waiting.clear()

    def abandon(self) -> None:
        """Close where nothing lands any more."""
        self.close()
        self._flying = 0

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self._lost += count
        self.stats.dropped += count

    def _next(self, now: float) -> int | None:
        """Return the place in line of the frame to run: the first whose window was heard, unless the engine is behind.

        A live stream passes over frames that have waited for the engine, not for their sound, as long as a newer one
        can be run.
        """
        if self.is_closed:
            return None
        found: int | None = None
        for at, waiting in enumerate(self._waiting):
            if waiting.frame.window not in self._windows:
                if self.lossless:
                    return found
                continue
            found = at
            stale = STALE_FIRST if waiting.arrived - self._begin <= BURST else STALE
            if self.lossless or waiting.ready is None or now - waiting.ready <= stale:
                return found
        return found
