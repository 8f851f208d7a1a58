"""Sound as the halves expect it: mono float32 at the bundle's rate, resampled the same way everywhere.

T samples, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats

Kind = TypeVar("Kind", np.float32, np.int16)

ZERO_CROSSINGS = 32
KAISER_BETA = 8.0
ROLLOFF = 0.92
BLOCK = 4096
# filters of more phases than this are interpolated between so many; every usual pair of rates has fewer
MAX_PHASES = 1024
# samples of a filter bank, or of the windows gathered for it, that are worked on at once
PIECE = 2**20
SILENCE_DB = -200.0
FULL_SCALE = 0.9999
DOWNMIX_BLOCK = 4096
DOWNMIX_FADE = 512
DOWNMIX_MEMORY = 0.5
# correlations from which on a channel counts as another's inverse, and down to which it goes on to do so
DOWNMIX_INVERSE = 0.9
DOWNMIX_STAYS = 0.5


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
    """Return a whole sound [T] or [T, C] as [T] float32: equals push + flush of a Downmix."""
    downmix = Downmix()
    head = downmix.push(samples)
    return np.concatenate([head, downmix.flush()]) if downmix.held else head


class Downmix:
    """Mixes the channels of a stream to mono so that what a person hears does not vanish.

    The mix is the mean over the channels, exactly, unless a channel is the inverse of an earlier one (a correlation
    below -0.9: one of two cables was wired wrongly, or a widening effect): it is turned over then. Correlations are
    measured over blocks of 4096 samples, with a memory of about two of them, and decide about the blocks after; only
    the first block waits for its own. The output does not depend on how the input is cut into pieces.
    """

    def __init__(self) -> None:
        self.held = 0
        self._channels = 0
        self._position = 0
        self._block: list[Floats] = []
        self._decided = False
        self._signs: Floats = np.ones(0, np.float32)
        self._before: Floats = self._signs
        self._covariance: npt.NDArray[np.float64] = np.zeros((0, 0))

    def push(self, samples: npt.NDArray[Any]) -> Floats:
        """Take [T] or [T, C] PCM and return the mono samples that are decided, [<= held + T] float32."""
        if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] == 0):
            raise ValueError(f"audio must be [T] or [T, C], got shape {samples.shape}")
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        parts = [] if channels == self._channels else [self._restart(channels)]
        floats = to_float(samples)
        if channels == 1:
            parts.append(floats if floats.ndim == 1 else floats[:, 0])
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        at = 0
        while at < len(floats):
            piece = floats[at : at + DOWNMIX_BLOCK - self._position]
            parts.append(self._take(piece))
            at += len(piece)
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def flush(self) -> Floats:
        """Return the samples that are still held; the stream may go on."""
        if not self.held:
            return np.zeros(0, np.float32)
        waiting = np.concatenate(self._block)
        self._learn()
        self._before = self._signs
        self.held = 0
        return self._mix(waiting, self._position - len(waiting))

    def _restart(self, channels: int) -> Floats:
        """Begin with another number of channels; returns what was held."""
        rest = self.flush()
        self._channels, self._position, self._block, self._decided = channels, 0, [], False
        self._signs = self._before = np.ones(channels, np.float32)
        self._covariance = np.zeros((channels, channels))
        return rest

    def _take(self, piece: Floats) -> Floats:
        """Mix a piece that ends within the block, or hold it until the first block is whole."""
        first, self._position = self._position, self._position + len(piece)
        self._block.append(piece)
        whole = self._position == DOWNMIX_BLOCK
        if self._decided:
            mixed = self._mix(piece, first)
        else:
            self.held += len(piece)
            mixed = self.flush() if whole else np.zeros(0, np.float32)
        if whole:
            self._before = self._signs
            if self._block:
                self._learn()
            self._position = 0
        return mixed

    def _learn(self) -> None:
        """Take the block into the correlations and choose the signs that hold after it."""
        block = np.concatenate(self._block).astype(np.float64)
        block = np.where(np.isfinite(block), block, 0.0)
        # a constant offset is not heard
        block -= block.mean(axis=0)
        self._block = []
        self._covariance = DOWNMIX_MEMORY * self._covariance + block.T @ block
        # silence says nothing: the first sound is waited for
        self._decided = self._decided or bool(self._covariance.any())
        self._signs = _signs(self._covariance, self._signs)

    def _mix(self, piece: Floats, first: int) -> Floats:
        """Return the mean over the channels with their signs; a change of signs is faded over the first samples of a
        block."""
        if bool(np.all(self._signs == 1) and np.all(self._before == 1)):
            plain: Floats = piece.mean(axis=1, dtype=np.float32)
            return plain
        mixed: Floats = (piece * self._signs).mean(axis=1, dtype=np.float32)
        if np.array_equal(self._signs, self._before) or first >= DOWNMIX_FADE:
            return mixed
        old = (piece * self._before).mean(axis=1, dtype=np.float32)
        share = np.minimum(1, (np.arange(first, first + len(piece), dtype=np.float32) + 1) / DOWNMIX_FADE)
        return (share * mixed + (1 - share) * old).astype(np.float32)


def _signs(covariance: npt.NDArray[np.float64], before: Floats) -> Floats:
    """Return the sign [C] of each channel: that of the earlier channel it follows most closely, turned over for an
    inverse.

    A channel that was turned over stays so until it no longer follows that channel's inverse at all.
    """
    scale = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.nan_to_num(covariance / np.outer(scale, scale))
    signs = np.ones(len(scale), np.float32)
    for channel in range(1, len(scale)):
        earlier = correlation[channel, :channel]
        closest = int(np.abs(earlier).argmax())
        if not scale[channel]:
            signs[channel] = before[channel]
        elif earlier[closest] > DOWNMIX_INVERSE:
            signs[channel] = signs[closest]
        elif earlier[closest] < -(DOWNMIX_INVERSE if before[channel] > 0 else DOWNMIX_STAYS):
            signs[channel] = -signs[closest]
    return signs


def replace_non_finite(samples: Floats) -> tuple[Floats, int]:
    """Zeros in place of NaN and infinity, and how many there were."""
    bad = ~np.isfinite(samples)
    count = int(np.count_nonzero(bad))
    return (np.where(bad, np.float32(0), samples), count) if count else (samples, 0)


def count_clipped(samples: Floats) -> int:
    """Return how many samples touch or exceed full scale."""
    return int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))


def loudness_db(samples: Floats) -> float:
    """RMS level in dBFS (a full-scale square wave is 0), -200 for digital silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    return max(SILENCE_DB, 10 * math.log10(power)) if power > 0 else SILENCE_DB


def fit_window(samples: npt.NDArray[Kind], length: int) -> npt.NDArray[Kind]:
    """Return a whole clip [T] as [length] samples: a shorter one is tiled, a longer one is centre-cropped."""
    if samples.ndim != 1 or samples.size == 0 or length < 1:
        raise ValueError(f"a clip must be [T] with T >= 1 and length >= 1, got {samples.shape} and {length}")
    if samples.size < length:
        return np.resize(samples, length)
    start = (samples.size - length) // 2
    return samples[start : start + length]


def resample(samples: Floats, rate_in: int, rate_out: int) -> Floats:
    """Resample a whole signal [T] -> [ceil(T * rate_out / rate_in)]; equals push + flush of a Resampler."""
    resampler = Resampler(rate_in, rate_out)
    pieces = [resampler.push(samples[at : at + PIECE]) for at in range(0, len(samples), PIECE)]
    return np.concatenate([*pieces, resampler.flush()])


def resample_span(
    read: Callable[[int, int], Floats], total: int, rate_in: int, rate_out: int, start: int, length: int
) -> Floats:
    """Return the samples [start, start + length) of `resample` of a sound of `total` samples, reading only what they
    need.

    `read(first, end)` gives the sound's samples [first, end), which lie within 0..total.
    """
    resampler = Resampler(rate_in, rate_out)
    first, end = resampler.needed(start, length)
    first, end = max(0, first), min(total, end)
    return resampler.span(read(first, max(first, end)), first, start, length)


def resampled_length(total: int, rate_in: int, rate_out: int) -> int:
    """Return how many samples `resample` makes of `total`."""
    return -(-total * rate_out // rate_in)


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
        """Return the rest of the output, up to ceil(T * rate_out / rate_in) samples in all; starts a new stream."""
        if self._bank is None:
            self.reset()
            return np.zeros(0, np.float32)
        total = -(-self.received * self._up // self._down)
        self._buffer = np.concatenate([self._buffer, np.zeros(2 * self._half, np.float32)])
        rest = self._produce(total)
        self.reset()
        return rest

    def needed(self, start: int, length: int) -> tuple[int, int]:
        """Return the span [first, end) of the input that the output samples [start, start + length) are made of."""
        if self._bank is None:
            return start, start + length
        last = (start + length - 1) * self._down // self._up
        return start * self._down // self._up - self._half + 1, last + self._half + 1

    def span(self, samples: Floats, first: int, start: int, length: int) -> Floats:
        """Return the output samples [start, start + length) of a stream that has `samples` [T] at `first`, zeros
        elsewhere.

        Begins a new stream.
        """
        low, high = self.needed(start, length)
        kept = np.zeros(high - low, np.float32)
        kept[max(0, first - low) : max(0, first + len(samples) - low)] = samples[max(0, low - first) : high - first]
        if self._bank is None:
            return kept
        self._buffer, self._buffer_start, self.produced = kept, low, start
        found = self._produce(start + length)
        self.reset()
        return found

    def _complete(self, received: int) -> int:
        """Return how many outputs n have their last tap, floor(n * down / up) + half, inside the input."""
        last = received - 1 - self._half
        return max(self.produced, -(-(last + 1) * self._up // self._down)) if last >= 0 else self.produced

    def _produce(self, end: int) -> Floats:
        assert self._bank is not None
        taps = self._bank.shape[1]
        rows = max(1, min(BLOCK, PIECE // taps))
        parts: list[Floats] = [np.zeros(0, np.float32)]
        for first in range(self.produced, end, rows):
            position = np.arange(first, min(first + rows, end), dtype=np.int64) * self._down
            start = position // self._up - self._half + 1 - self._buffer_start
            windows = np.lib.stride_tricks.sliding_window_view(self._buffer, taps)[start]
            # einsum, not a matrix product: each row is summed in the same order whatever the number of rows
            parts.append(np.einsum("nk,nk->n", windows, self._weights(position % self._up), dtype=np.float64))
        self.produced = max(self.produced, end)
        keep = self.produced * self._down // self._up - self._half + 1 - self._buffer_start
        if keep > 0:
            self._buffer = self._buffer[keep:].copy()
            self._buffer_start += keep
        return np.concatenate(parts).astype(np.float32)

    def _weights(self, phase: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the filter [n, taps] of each phase in 0..up-1, interpolated where the bank does not hold all of
        them."""
        assert self._bank is not None
        if self._up <= MAX_PHASES:
            exact: npt.NDArray[np.float64] = self._bank[phase]
            return exact
        place = phase * (MAX_PHASES / self._up)
        below = place.astype(np.int64)
        share = (place - below)[:, None]
        between: npt.NDArray[np.float64] = (1 - share) * self._bank[below] + share * self._bank[below + 1]
        return between


@lru_cache(maxsize=8)
def _filter_bank(up: int, down: int) -> npt.NDArray[np.float64]:
    """Return the filter of each phase [up, taps]: tap k of phase p weighs the input at offset k - half + 1 - p / up.

    Of more than MAX_PHASES phases, that many evenly spaced ones and the one after the last: memory and time are bounded
    whatever the rates.
    """
    cutoff = ROLLOFF * min(1.0, up / down)
    half = math.ceil(ZERO_CROSSINGS / cutoff)
    phases = np.arange(up) / up if up <= MAX_PHASES else np.arange(MAX_PHASES + 1) / MAX_PHASES
    rows = max(1, PIECE // (2 * half))
    parts = []
    for first in range(0, len(phases), rows):
        offset = np.arange(1 - half, half + 1)[None, :] - phases[first : first + rows, None]
        window = np.i0(KAISER_BETA * np.sqrt(np.maximum(0, 1 - (offset / half) ** 2))) / np.i0(KAISER_BETA)
        bank = cutoff * np.sinc(cutoff * offset) * window
        parts.append(bank / bank.sum(axis=1, keepdims=True))
    whole: npt.NDArray[np.float64] = np.concatenate(parts)
    return whole
