"""Sound as the halves expect it: mono float32 at the bundle's rate, resampled the same way everywhere.

T samples, C channels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

ZERO_CROSSINGS = 32
KAISER_BETA = 8.0
ROLLOFF = 0.92
BLOCK = 4096
SILENCE_DB = -200.0
FULL_SCALE = 0.9999


def to_float(samples: npt.NDArray[Any]) -> Floats:
    """PCM of any numpy dtype as float32, integers scaled so that full scale is 1."""
    if samples.dtype.kind == "f":
        floats: Floats = samples.astype(np.float32, copy=False)
        return floats
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if samples.dtype.kind == "i":
        scaled: Floats = (samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
        return scaled
    raise ValueError(f"audio must be float or PCM integers, got dtype {samples.dtype}: convert it to float32")


def to_mono(samples: npt.NDArray[Any]) -> Floats:
    """The mean over the channels: [T] or [T, C] -> [T] float32."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] == 0):
        raise ValueError(f"audio must be [T] or [T, C], got shape {samples.shape}")
    floats = to_float(samples)
    return floats if floats.ndim == 1 else floats.mean(axis=1, dtype=np.float32)


def replace_non_finite(samples: Floats) -> tuple[Floats, int]:
    """Zeros in place of NaN and infinity, and how many there were."""
    bad = ~np.isfinite(samples)
    count = int(np.count_nonzero(bad))
    return (np.where(bad, np.float32(0), samples), count) if count else (samples, 0)


def count_clipped(samples: Floats) -> int:
    """How many samples touch or exceed full scale."""
    return int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))


def loudness_db(samples: Floats) -> float:
    """RMS level in dBFS (a full-scale square wave is 0), -200 for digital silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    return max(SILENCE_DB, 10 * math.log10(power)) if power > 0 else SILENCE_DB


def fit_window(samples: Floats, length: int) -> Floats:
    """A whole clip [T] as [length] samples: a shorter one is tiled, a longer one is centre-cropped."""
    if samples.ndim != 1 or samples.size == 0 or length < 1:
        raise ValueError(f"a clip must be [T] with T >= 1 and length >= 1, got {samples.shape} and {length}")
    if samples.size < length:
        return np.resize(samples, length)
    start = (samples.size - length) // 2
    return samples[start : start + length]


def resample(samples: Floats, rate_in: int, rate_out: int) -> Floats:
    """Resample a whole signal [T] -> [ceil(T * rate_out / rate_in)]; equals push + flush of a Resampler."""
    resampler = Resampler(rate_in, rate_out)
    return np.concatenate([resampler.push(samples), resampler.flush()])


class Resampler:
    """Windowed-sinc polyphase resampling of a stream, with zeros before and after it.

    Output sample n sits at input time n / rate_out: there is no delay to account for. The output does not depend on
    how the input is cut into pieces.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        if rate_in < 1 or rate_out < 1:
            raise ValueError(f"sample rates must be at least 1 Hz, got {rate_in} and {rate_out}")
        divisor = math.gcd(rate_in, rate_out)
        self._up, self._down = rate_out // divisor, rate_in // divisor
        self._bank = None if self._up == self._down else _filter_bank(self._up, self._down)
        self._half = 0 if self._bank is None else self._bank.shape[1] // 2
        self.reset()

    def reset(self) -> None:
        """Forget the stream and start at time zero again."""
        self.received = 0
        self.produced = 0
        self._buffer: Floats = np.zeros(max(self._half - 1, 0), np.float32)
        self._buffer_start = 1 - self._half if self._half else 0

    def push(self, samples: Floats) -> Floats:
        """Take [T] samples and return all output samples that they complete."""
        if samples.ndim != 1:
            raise ValueError(f"a Resampler takes mono [T], got shape {samples.shape}: use to_mono first")
        self.received += samples.size
        if self._bank is None:
            self.produced = self.received
            return np.array(samples, np.float32)
        self._buffer = np.concatenate([self._buffer, samples.astype(np.float32, copy=False)])
        return self._produce(self._complete(self.received))

    def push_silence(self, count: int) -> tuple[Floats, int]:
        """Take `count` zeros; returns output samples and the number of further output samples that are all zero.

        A long silence costs neither time nor memory.
        """
        taps = 2 * self._half
        head = self.push(np.zeros(min(count, taps), np.float32))
        rest = count - min(count, taps)
        if rest == 0:
            return head, 0
        self.received += rest
        before = self.produced
        self.produced = self.received if self._bank is None else self._complete(self.received)
        if self._bank is not None:
            self._buffer = np.zeros(taps, np.float32)
            self._buffer_start = self.received - taps
        return head, self.produced - before

    def flush(self) -> Floats:
        """The rest of the output, up to ceil(T * rate_out / rate_in) samples in all; starts a new stream."""
        if self._bank is None:
            self.reset()
            return np.zeros(0, np.float32)
        total = -(-self.received * self._up // self._down)
        self._buffer = np.concatenate([self._buffer, np.zeros(2 * self._half, np.float32)])
        rest = self._produce(total)
        self.reset()
        return rest

    def _complete(self, received: int) -> int:
        """How many outputs n have their last tap, floor(n * down / up) + half, inside the input."""
        last = received - 1 - self._half
        return max(self.produced, -(-(last + 1) * self._up // self._down)) if last >= 0 else self.produced

    def _produce(self, end: int) -> Floats:
        assert self._bank is not None
        taps = self._bank.shape[1]
        parts: list[Floats] = [np.zeros(0, np.float32)]
        for first in range(self.produced, end, BLOCK):
            position = np.arange(first, min(first + BLOCK, end), dtype=np.int64) * self._down
            start = position // self._up - self._half + 1 - self._buffer_start
            windows = np.lib.stride_tricks.sliding_window_view(self._buffer, taps)[start]
            # einsum, not a matrix product: each row is summed in the same order whatever the number of rows
            parts.append(np.einsum("nk,nk->n", windows, self._bank[position % self._up], dtype=np.float64))
        self.produced = max(self.produced, end)
        keep = self.produced * self._down // self._up - self._half + 1 - self._buffer_start
        if keep > 0:
            self._buffer = self._buffer[keep:].copy()
            self._buffer_start += keep
        return np.concatenate(parts).astype(np.float32)


@lru_cache(maxsize=16)
def _filter_bank(up: int, down: int) -> npt.NDArray[np.float64]:
    """The filter of each phase [up, taps]: tap k of phase p weighs the input at offset k - half + 1 - p / up."""
    cutoff = ROLLOFF * min(1.0, up / down)
    half = math.ceil(ZERO_CROSSINGS / cutoff)
    offset = np.arange(1 - half, half + 1)[None, :] - np.arange(up)[:, None] / up
    window = np.i0(KAISER_BETA * np.sqrt(np.maximum(0, 1 - (offset / half) ** 2))) / np.i0(KAISER_BETA)
    bank = cutoff * np.sinc(cutoff * offset) * window
    normalised: npt.NDArray[np.float64] = bank / bank.sum(axis=1, keepdims=True)
    return normalised
