"""Makes background noise that belongs to no class: white, pink, brown, hum, speech-shaped, coloured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import InputError
from avgn.scenes.draw import Draw
from avgn.scenes.synth import RATE, Wave, as_wave, oscillate, shape, table, times

KINDS = ("white", "pink", "brown", "hum", "speech", "coloured")


def draw_noise(kind: str, num: int, d: Draw) -> Wave:
    """Draw noise of one of KINDS: [num] samples at 22 050 Hz with an RMS of 1."""
    if kind not in KINDS:
        raise InputError(f"noise {kind!r} is not known: use one of {', '.join(KINDS)}")
    if kind == "hum":
        waveform = _hum(num, d)
    else:
        waveform = d.rng.standard_normal(num, dtype=np.float32)
        if kind != "white":
            knots = np.array([d.uniform(-15, 15) for _ in range(8)])
            waveform = shape(waveform, lambda f: _gain(kind, f, knots))
        if kind == "speech":
            waveform *= _syllables(num, d)
    return as_wave(waveform / np.sqrt(np.mean(waveform**2, dtype=np.float64)))


def _gain(kind: str, frequency: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    f = np.maximum(frequency, 20)
    if kind == "pink":
        return f**-0.5
    if kind == "brown":
        return 1 / f
    if kind == "speech":
        # Long-term average speech: flat to 500 Hz, then about 9 dB an octave down.
        return (f > 90) / (1 + (f / 500) ** 1.5)
    grid = np.linspace(np.log2(60), np.log2(10_000), len(knots))
    result: NDArray[np.float64] = 10 ** (np.interp(np.log2(f), grid, knots) / 20)
    return result


def _syllables(num: int, d: Draw) -> Wave:
    """Draw an irregular envelope like that of several talkers, moving at about 4 Hz: [num]."""
    rate = d.uniform(5, 9)
    knots = np.abs(d.rng.standard_normal(int(num / RATE * rate) + 3)) + d.uniform(0.25, 0.8)
    result: Wave = np.interp(times(num) * rate, np.arange(len(knots)), knots).astype(np.float32)
    return result


def _hum(num: int, d: Draw) -> Wave:
    """Make mains hum of 50 or 60 Hz with harmonics, on a floor of faint noise."""
    count = d.integer(4, 24)
    amplitudes = np.arange(1, count + 1) ** -d.uniform(0.4, 1.6) * 10 ** (d.rng.uniform(-8, 8, count) / 20)
    tone = oscillate(np.full(num, d.choice((50.0, 60.0)), np.float32), table(amplitudes, d.rng), d.rng.random())
    return tone + np.float32(d.uniform(0.003, 0.05)) * d.rng.standard_normal(num, dtype=np.float32)
