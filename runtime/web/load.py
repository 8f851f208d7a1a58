"""What visitors' pictures may cost: whoever costs most waits first, and only while others wait."""

from __future__ import annotations

import threading
import time as clock

from avgn.runtime.web.limits import Bucket, Limits

# seconds that work waits for a thread, in the mean, from which on the machine has too much of it
BUSY = 0.012
SMOOTHING = 0.05


class Load:
    """How long the work of all visitors waits for its turn. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wait = 0.0

    def note(self, waited: float) -> None:
        """Work began after so many seconds."""
        with self._lock:
            self._wait += SMOOTHING * (waited - self._wait)

    @property
    def is_high(self) -> bool:
        """Whether there is more work than the machine can do."""
        return self._wait > BUSY


class Budget:
    """One visitor's: so many pictures and pixels a second, and a fair share of them that nobody takes away."""

    def __init__(self, limits: Limits, load: Load) -> None:
        now = clock.monotonic()
        self._load = load
        self._most = _Pair(limits.frames_per_second, limits.pixels_per_second, now)
        self._fair = _Pair(limits.fair_frames, limits.fair_pixels, now)

    def take(self, pixels: int) -> bool:
        """Return whether a picture of so many pixels is within it."""
        now = clock.monotonic()
        is_fair = self._fair.take(pixels, now)
        return self._most.take(pixels, now) and (is_fair or not self._load.is_high)


class _Pair:
    """Pictures and pixels a second, a second's worth of them at once."""

    def __init__(self, frames: float, pixels: float, now: float) -> None:
        self._frames = Bucket(frames, 1.0, now)
        self._pixels = Bucket(pixels, 1.0, now)

    def take(self, pixels: int, now: float) -> bool:
        return self._frames.take(1, now) and self._pixels.take(pixels, now)
