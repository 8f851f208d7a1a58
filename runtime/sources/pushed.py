"""Pictures and sound that the program itself hands over, as a live source."""

from __future__ import annotations

import queue
import time as clock
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from avgn.runtime.audio import to_float
from avgn.runtime.media import AudioBlock, VideoFrame
from avgn.runtime.sources import LiveEvent, StateChange

# more than a second of pictures and sound, so that a slow start loses nothing
QUEUE_PIECES = 256


class PushedSource:
    """`push_frame` and `push_audio` from any thread; `end` when no more comes. Full: the caller waits."""

    def __init__(self, name: str = "pushed") -> None:
        self._name = name
        self._line: queue.Queue[LiveEvent] = queue.Queue(maxsize=QUEUE_PIECES)
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    def push_frame(self, rgb: npt.NDArray[np.uint8], time: float) -> None:
        """Push a frame [H, W, 3] uint8 RGB at `time` seconds."""
        self._put(VideoFrame(rgb=rgb, time=time, captured=clock.monotonic()))

    def push_audio(self, samples: npt.NDArray[np.generic], rate: int, time: float) -> None:
        """Push sound [T] or [T, C] whose first sample is at `time` seconds."""
        block = to_float(samples)
        self._put(AudioBlock(samples=block[:, None] if block.ndim == 1 else block, rate=rate, time=time))

    def end(self) -> None:
        """Say that no more comes; what was pushed is still localized."""
        self._put(StateChange(state="ended"))

    def close(self) -> None:
        self._closed = True

    def events(self) -> Iterator[LiveEvent]:
        yield StateChange(state="live")
        while not self._closed:
            try:
                event = self._line.get(timeout=0.1)
            except queue.Empty:
                continue
            yield event
            if isinstance(event, StateChange):
                return
        yield StateChange(state="ended")

    def _put(self, event: LiveEvent) -> None:
        while not self._closed:
            try:
                self._line.put(event, timeout=0.1)
                return
            except queue.Full:
                continue
