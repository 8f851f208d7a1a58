"""What a visitor has sent and nobody has looked at yet: sound in full, of the pictures the newest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# pictures in line: more come at once only where we are behind
WAITING = 8
# seconds of sound that are worked on in one go, so that visitors take turns
PORTION = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Jpeg:
    """A JPEG at `at` seconds of the stream; `time` is the browser's own, `arrived` the server's (monotonic)."""

    jpeg: bytes
    at: float
    time: float
    arrived: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """PCM [T] int16 at `rate` Hz from `at` seconds of the stream on; empty: there will be no more."""

    samples: npt.NDArray[np.int16]
    rate: int
    at: float


class Recent:
    """The last `seconds` of a visitor's sound."""

    def __init__(self, seconds: float) -> None:
        self._most = seconds
        self._pieces: deque[Samples] = deque()
        self._seconds = 0.0

    def add(self, pieces: list[Samples]) -> None:
        """Add sound, and let go of what is older."""
        for piece in pieces:
            self._pieces.append(piece)
            self._seconds += _length(piece)
        while self._pieces and self._seconds - _length(self._pieces[0]) >= self._most:
            self._seconds -= _length(self._pieces.popleft())

    def take(self) -> list[Samples]:
        """Return the pieces, the oldest first; they stay."""
        return list(self._pieces)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self._seconds = 0.0


class Inbox:
    """One visitor's. Everything runs in the event loop."""

    def __init__(self, pass_over: Callable[[], None]) -> None:
        """`pass_over` is called for every picture that is never looked at."""
        self._pass_over = pass_over
        self._frames: deque[Jpeg] = deque()
        self._samples: deque[Samples] = deque()
        self._filled = asyncio.Event()

    def put(self, piece: Jpeg | Samples) -> None:
        """Add a piece; the oldest picture goes where there are too many."""
        if isinstance(piece, Samples):
            self._samples.append(piece)
        else:
            if len(self._frames) >= WAITING:
                self._frames.popleft()
                self._pass_over()
            self._frames.append(piece)
        self._filled.set()

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._samples.clear()

    async def take(self) -> tuple[list[Samples], Jpeg | None]:
        """Wait for something: a portion of the sound, and the next picture."""
        while not self._samples and not self._frames:
            self._filled.clear()
            await self._filled.wait()
        portion: list[Samples] = []
        seconds = 0.0
        while self._samples and seconds < PORTION:
            portion.append(self._samples.popleft())
            seconds += _length(portion[-1])
        return portion, self._frames.popleft() if self._frames else None


def _length(piece: Samples) -> float:
    return len(piece.samples) / piece.rate
