"""Makes building blocks of sounds: wave tables, struck prototypes, envelopes, spectral tilt, room. All mono float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw

RATE = 22_050
TABLE_SAMPLES = 4096
Wave = NDArray[np.float32]


def as_wave(waveform: NDArray[Any]) -> Wave:
    """Convert samples to float32."""
    result: Wave = waveform.astype(np.float32)
    return result


def times(num: int) -> Wave:
    """Return the time of every sample in seconds: [num]."""
    result: Wave = np.arange(num, dtype=np.float32) / np.float32(RATE)
    return result


def table(amplitudes: NDArray[np.float64], rng: np.random.Generator) -> Wave:
    """Make one period of a sum of harmonics (the first is the fundamental) with random phases: [TABLE_SAMPLES]."""
    spectrum = np.zeros(TABLE_SAMPLES // 2 + 1, np.complex128)
    phases = np.exp(2j * np.pi * rng.random(len(amplitudes)))
    spectrum[1 : len(amplitudes) + 1] = amplitudes * phases
    period = np.fft.irfft(spectrum, TABLE_SAMPLES)
    result: Wave = (period / np.sqrt(np.mean(period**2))).astype(np.float32)
    return result


def oscillate(frequency: Wave, period: Wave, start: float = 0.0) -> Wave:
    """Play a wave table at a frequency [T] in Hz that may vary."""
    phase = np.cumsum(frequency, dtype=np.float64)
    phase *= TABLE_SAMPLES / RATE
    phase += start * TABLE_SAMPLES
    result: Wave = period[phase.astype(np.int64) & (TABLE_SAMPLES - 1)]
    return result


def harmonics(d: Draw, top_frequency: float, most: int, slope: tuple[float, float]) -> NDArray[np.float64]:
    """Draw the amplitudes of 1..n harmonics below 9 kHz that fall as k^-slope, each off by up to 6 dB."""
    num = max(1, min(most, int(9000 / top_frequency)))
    k = np.arange(1, num + 1)
    fall = d.uniform(*slope)
    ripple = np.array([d.uniform(-6, 6) for _ in range(num)])
    result: NDArray[np.float64] = k**-fall * 10 ** (ripple / 20)
    return result


def beats(d: Draw, seconds: float, rate: float, jitter: float) -> NDArray[np.float64]:
    """Draw onsets in seconds at `rate` per second from before 0 to the end, each off by up to `jitter` of a
    period."""
    period = 1 / rate
    grid = np.arange(-1, seconds * rate + 1) * period + d.rng.random() * period
    onsets: NDArray[np.float64] = grid + jitter * period * (2 * d.rng.random(len(grid)) - 1)
    return onsets


def accents(d: Draw, num: int, depth: float) -> NDArray[np.float64]:
    """Draw the gains of a repeated pattern of 2-4 events, at most `depth` (0..1) below 1: [num]."""
    pattern = 1 - depth * d.rng.random(d.integer(2, 4))
    pattern[0] = 1
    result: NDArray[np.float64] = np.resize(pattern, num)
    return result


def strike(
    num: int,
    prototype: Wave,
    onsets: NDArray[np.float64],
    gains: NDArray[np.float64],
    ratios: Sequence[float] | NDArray[np.float64] | None = None,
) -> Wave:
    """Add copies of a prototype, each with its gain and its speed (pitch) ratio, into [num] samples."""
    out = np.zeros(num, np.float32)
    for index, (onset, gain) in enumerate(zip(onsets, gains, strict=True)):
        ratio = 1.0 if ratios is None else float(ratios[index])
        waveform = prototype if ratio == 1.0 else _speed(prototype, ratio)
        start = round(onset * RATE)
        first, last = max(start, 0), min(start + len(waveform), num)
        if first < last:
            out[first:last] += np.float32(gain) * waveform[first - start : last - start]
    return out


def _speed(waveform: Wave, ratio: float) -> Wave:
    position = np.arange(int(len(waveform) / ratio)) * ratio
    index = position.astype(np.int64)
    part = (position - index).astype(np.float32)
    padded = np.append(waveform, np.float32(0))
    result: Wave = padded[index] * (1 - part) + padded[index + 1] * part
    return result


def ends(waveform: Wave, attack: float, release: float) -> Wave:
    """Fade the first `attack` and the last `release` seconds linearly, in place."""
    a, r = max(2, int(attack * RATE)), max(2, int(release * RATE))
    waveform[:a] *= np.linspace(0, 1, a, dtype=np.float32)[: len(waveform)]
    waveform[-r:] *= np.linspace(1, 0, r, dtype=np.float32)[-len(waveform) :]
    return waveform


def shape(waveform: Wave, gain: Callable[[NDArray[Any]], NDArray[Any]]) -> Wave:
    """Filter by a zero-phase gain over frequency in Hz."""
    size = cv2.getOptimalDFTSize(len(waveform))
    spectrum = np.fft.rfft(waveform, size)
    spectrum *= gain(np.fft.rfftfreq(size, 1 / RATE))
    result: Wave = np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)
    return result


def band_noise(num: int, centre: float, width: float, d: Draw) -> Wave:
    """Make noise around `centre` Hz with a bell-shaped spectrum of `width` octaves (standard deviation): [num]."""
    white = d.rng.standard_normal(num, dtype=np.float32)
    return shape(white, lambda f: np.exp(-0.5 * (np.log2(np.maximum(f, 20) / centre) / width) ** 2))


def place_in_room(waveform: Wave, d: Draw) -> Wave:
    """Colour a sound so that its spectral centroid says little about its class; RMS becomes 1.

    A bump in the spectrum, a tilt (within 6 dB an octave) towards a random centroid, a wandering brightness, a little
    reverberation and slow swells.
    """
    decay, wet = d.uniform(0.02, 0.09), d.uniform(0.0, 0.4)
    length = int(3 * decay * RATE)
    tail = d.rng.standard_normal(length, dtype=np.float32) * np.exp(-times(length) / np.float32(decay))
    tail *= wet / np.sqrt(np.sum(tail**2))
    size = cv2.getOptimalDFTSize(len(waveform) + length)
    octave = np.log2(np.clip(np.fft.rfftfreq(size, 1 / RATE), 90, 9000) / 900)
    centre, width, height = d.uniform(-1.5, 2.5, cycles=3), d.uniform(0.4, 1.2), d.uniform(-10, 10, cycles=3)
    bump = height / 6.02 * np.exp(-0.5 * ((octave - centre) / width) ** 2)
    spectrum = np.fft.rfft(waveform, size) * np.exp2(bump)
    spectrum *= 1 + np.fft.rfft(tail, size)
    tilt = _tilt_towards(d.log_uniform(650, 3000, cycles=3), spectrum, octave)
    wander = d.uniform(0.0, 8.0, cycles=3) / 6.02
    dark, bright = (
        np.fft.irfft(spectrum * np.exp2(octave * slope), size)[: len(waveform)].astype(np.float32)
        for slope in (tilt - wander / 2, tilt + wander / 2)
    )
    dark, bright = _level(dark), _level(bright)
    mix = _wander(len(waveform), d.uniform(1.5, 5.0), d.rng)
    heard = dark + mix * (bright - dark)
    swell = d.uniform(0.0, 0.15) * np.sin(2 * np.pi * d.uniform(0.15, 0.6) * times(len(waveform)) + d.uniform(0, 6.28))
    return _level(heard * (1 + swell.astype(np.float32)))


def _tilt_towards(target: float, spectrum: NDArray[np.complexfloating[Any, Any]], octave: NDArray[np.float64]) -> float:
    """Return the tilt (powers of f, within 6 dB an octave) that brings the centroid closest to `target` Hz."""
    band = ((octave - octave[0]) * 6).astype(np.int64)
    power = np.bincount(band, np.abs(spectrum) ** 2)
    middle = np.arange(len(power)) / 6 + octave[0] + 1 / 12
    slopes = np.linspace(-1, 1, 41)
    tilted = np.sqrt(power) * np.exp2(slopes[:, None] * middle)
    centroid = (tilted * 900 * np.exp2(middle)).sum(axis=1) / tilted.sum(axis=1)
    return float(slopes[np.abs(np.log(centroid / target)).argmin()])


def _wander(num: int, rate: float, rng: np.random.Generator) -> Wave:
    """Draw a random walk between 0 and 1 with `rate` corners a second: [num]."""
    corners = rng.random(int(num / RATE * rate) + 3)
    result: Wave = np.interp(times(num) * rate + rng.random(), np.arange(len(corners)), corners).astype(np.float32)
    return result


def _level(waveform: Wave) -> Wave:
    """Scale to an RMS of 1."""
    result: Wave = waveform / np.float32(np.sqrt(np.mean(waveform**2, dtype=np.float64)) + 1e-9)
    return result
