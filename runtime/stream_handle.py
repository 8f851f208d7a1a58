"""One stream of a `MultiStream`, as its caller sees it: sound and frames in, results by a callback."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from avgn.runtime.arrays import Pixels
from avgn.runtime.frame_queue import FrameQueue, StreamStats
from avgn.runtime.stream import StreamLocalizer

# seconds between two looks at a full line
POLL = 0.1


class StreamHandle:
    """One stream of a `MultiStream`. `push_audio` and `push_frame` may be called from any one thread each."""

    def __init__(
        self,
        name: str,
        core: StreamLocalizer,
        queue: FrameQueue,
        lock: threading.Condition,
        leave: Callable[[], None],
    ) -> None:
        """`lock` guards `core` and `queue`; its owner is told to `leave` the stream when it is closed."""
        self.name = name
        self._core = core
        self._queue = queue
        self._lock = lock
        self._leave = leave
        # held while sound is prepared; always taken before the lock of all streams
        self._audio_lock = threading.Lock()
        self._is_finishing = False

    @property
    def stats(self) -> StreamStats:
        """Counts of the stream so far."""
        return self._queue.stats

    def push_audio(self, samples: npt.NDArray[Any], rate: int, time: float) -> None:
        """Take sound [T] or [T, C] at `rate` Hz whose first sample is at `time` seconds. Nothing is dropped."""
        with self._audio_lock:
            self._refuse_closed()
            # a stream that is connected again may have sound after all
            self._core.push_audio(samples, rate, time, lock=self._adding(), reopen=True)

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """Hold the lock while sound that was prepared is added: preparing it takes time that nobody waits for."""
        with self._lock:
            self._refuse_closed()
            yield
            if self._is_finishing:
                self._core.end_audio()
            self._lock.notify_all()

    def end_audio(self) -> None:
        """Say that no more sound comes: frames stop waiting for it."""
        with self._audio_lock, self._lock:
            self._core.end_audio()
            self._lock.notify_all()

    def push_frame(self, rgb: Pixels, time: float, payload: Any = None) -> None:
        """Take a frame [H, W, 3] uint8 at `time` seconds; `payload` comes back with its result.

        A live stream whose engine is behind runs the newest frame and counts those it passes over; a lossless one makes
        the caller wait while its line is full.
        """
        self._refuse_closed()
        frame = self._core.take_frame(rgb, time)
        arrived = clock.monotonic()
        with self._lock:
            while self._queue.lossless and self._queue.is_full and not self._queue.is_closed:
                self._lock.wait(POLL)
            self._refuse_closed()
            self._queue.put(frame, payload, arrived)
            self._lock.notify_all()

    def finish(self, timeout: float | None = None) -> bool:
        """Wait until every frame pushed so far has its result; whether that came about in `timeout` seconds."""
        self.end_audio()
        with self._lock:
            # the last frames are not passed over for newer ones
            self._queue.lossless = self._is_finishing = True
            return self._lock.wait_for(lambda: self._queue.is_done or self._queue.is_closed, timeout)

    def close(self) -> None:
        """Leave; no result comes after this returns."""
        with self._lock:
            self._queue.close()
            self._lock.notify_all()
            self._leave()

    def warnings(self) -> list[str]:
        """Sentences about the sound so far that the user should know."""
        return self._core.warnings()

    def _refuse_closed(self) -> None:
        if self._queue.is_closed:
            raise RuntimeError(f"stream {self.name!r} was closed: open another one")
