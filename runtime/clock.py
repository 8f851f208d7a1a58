"""The sound of a stream on one clock: resampled, gaps filled, windows cut out of it.

The clock's zero is the container's zero: sound that starts later is preceded by silence, sound before zero is cut off.
Window k covers the output samples [k * hop - T, k * hop); outside of the stream there are zeros.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.audio import Downmix, Resampler, count_clipped, replace_non_finite
from avgn.runtime.limits import check_audio

# container timestamps jitter by up to a few milliseconds; a real gap is longer
TOLERANCE = 0.01
CRUMB = 4096
# samples at the bundle's rate, or how many of them are zero
Piece = Floats | int


class AudioClock:
    """Takes blocks of sound with their times, gives windows [T] at the bundle's rate."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.end = 0
        self.closed = False
        self.samples_in = 0
        self.non_finite = 0
        self.clipped = 0
        self.peak = 0.0
        self._segments: deque[tuple[int, Floats]] = deque()
        self._downmix = Downmix()
        self._resampler: Resampler | None = None
        self._rate = 0
        self._origin = 0.0

    def push(self, samples: npt.NDArray[Any], rate: int, time: float) -> None:
        """Add [T] or [T, C] samples whose first one sounds at `time` seconds; what is counted is the mono mix.

        A jump of more than 10 ms forward becomes silence, one backward drops the samples that are already there. Raises
        InputError for rates and numbers of channels that no recording has.
        """
        self.add(self.prepare(samples, rate, time))

    def prepare(self, samples: npt.NDArray[Any], rate: int, time: float) -> list[Piece]:
        """Do all of `push` that takes time, and change nothing that a reader sees: `add` takes what it returns.

        Everything that was prepared must be added, in order.
        """
        check_audio("the sound", rate, 1 if samples.ndim == 1 else samples.shape[-1])
        if self._resampler is None or rate != self._rate:
            pieces = self._finish_resampler()
            self._resampler, self._rate = Resampler(rate, self.sample_rate), rate
            self._origin = (self.end + sum(map(_length, pieces))) / self.sample_rate
        else:
            pieces = []
        jump = time - (self._origin + (self._resampler.received + self._downmix.held) / rate)
        if jump > TOLERANCE:
            pieces.append(self._resample(self._downmix.flush()))
            pieces += self._resampler.push_silence(round(jump * rate))
        elif jump < -TOLERANCE:
            samples = samples[min(len(samples), round(-jump * rate)) :]
        pieces.append(self._resample(self._downmix.push(samples)))
        return pieces

    def add(self, pieces: Iterable[Piece]) -> None:
        """Put what was prepared behind the sound that is there."""
        for piece in pieces:
            if isinstance(piece, int):
                self.end += piece
            else:
                self._append(piece)

    def close(self) -> None:
        """Say that no more sound comes."""
        self.add(self._finish_resampler())
        self.closed = True

    def window(self, start: int, length: int) -> Floats:
        """Return the samples [start, start + length) as [length]; zeros where there are none."""
        out = np.zeros(length, np.float32)
        for first, samples in self._segments:
            low, high = max(first, start), min(first + samples.size, start + length)
            if low < high:
                out[low - start : high - start] = samples[low - first : high - first]
        return out

    def forget(self, before: int) -> None:
        """Let go of the sound before sample `before`."""
        while self._segments and self._segments[0][0] + self._segments[0][1].size <= before:
            self._segments.popleft()

    def _finish_resampler(self) -> list[Piece]:
        if self._resampler is None:
            return []
        rest: list[Piece] = [self._resample(self._downmix.flush()), self._resampler.flush()]
        self._resampler = None
        return rest

    def _resample(self, mono: Floats) -> Floats:
        """Count what is in mono sound [T] at the stream's rate and resample it."""
        if self._resampler is None or not mono.size:
            return np.zeros(0, np.float32)
        mono, bad = replace_non_finite(mono)
        self.samples_in += mono.size
        self.non_finite += bad
        self.clipped += count_clipped(mono)
        self.peak = max(self.peak, float(np.abs(mono).max()))
        return self._resampler.push(mono)

    def _append(self, samples: Floats) -> None:
        if not samples.size:
            return
        if self._segments:
            first, last = self._segments[-1]
            # crumbs are joined, so that a window is never put together from thousands of them
            if first + last.size == self.end and last.size < CRUMB:
                self._segments[-1] = (first, np.concatenate([last, samples]))
                self.end += samples.size
                return
        self._segments.append((self.end, samples))
        self.end += samples.size


def _length(piece: Piece) -> int:
    return piece if isinstance(piece, int) else piece.size
