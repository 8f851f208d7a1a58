"""Mixes the sound of a scene: the sum of its sources plus noise at a signal-to-noise ratio, scaled to a loudness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw
from avgn.scenes.noise import KINDS, draw_noise

RELATIVE_LEVEL_DB = 4.0
SNR_DB = (0.0, 30.0)
LOUDNESS_DBFS = (-35.0, -12.0)
NOISE_ALONE_DBFS = (-60.0, -15.0)
SILENCE_SHARE = 0.15
PEAK_AMPLITUDE = 0.98

Wave = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Holds a mixed sound: audio [T] = sum of stems [T] + noise; `noise` is its kind or "silence"; `snr_db` is None
    without sources."""

    audio: Wave
    stems: tuple[Wave, ...]
    noise: str
    snr_db: float | None


def mix(waveforms: Sequence[Wave], num: int, d: Draw, kind: str | None = None) -> Mixture:
    """Mix sounds (each with an RMS of 1 while it sounds) to `num` samples at a random loudness.

    Relative levels are uniform within 4 dB either way, the noise lies 0-30 dB below the sum of the sources (powers over
    the samples where any of them sounds), the loudness is -35..-12 dBFS. Nothing clips: peaks lower the whole.
    """
    kind = kind or d.choice(KINDS)
    if not waveforms:
        return _noise_alone(num, kind, d)
    stems = [
        waveform * np.float32(_gain(d.rng.uniform(-RELATIVE_LEVEL_DB, RELATIVE_LEVEL_DB))) for waveform in waveforms
    ]
    total: Wave = np.sum(stems, axis=0, dtype=np.float32)
    active = np.any([stem != 0 for stem in stems], axis=0)
    power = float(np.mean(total[active] ** 2, dtype=np.float64)) if active.any() else 1.0
    snr = float(d.rng.uniform(*SNR_DB))
    noise = draw_noise(kind, num, d) * np.float32(np.sqrt(power) * _gain(-snr))
    loudness = _gain(d.rng.uniform(*LOUDNESS_DBFS)) / np.sqrt(power * (1 + _gain(-2 * snr)))
    peak = float(np.abs(total + noise).max()) * loudness
    scale = np.float32(loudness * min(1.0, PEAK_AMPLITUDE / peak))
    scaled = tuple(stem * scale for stem in stems)
    return Mixture(audio=np.sum(scaled, axis=0, dtype=np.float32) + noise * scale, stems=scaled, noise=kind, snr_db=snr)


def _noise_alone(num: int, kind: str, d: Draw) -> Mixture:
    if d.chance(SILENCE_SHARE):
        return Mixture(audio=np.zeros(num, np.float32), stems=(), noise="silence", snr_db=None)
    noise = draw_noise(kind, num, d) * np.float32(_gain(d.rng.uniform(*NOISE_ALONE_DBFS)))
    peak = float(np.abs(noise).max())
    return Mixture(audio=noise * np.float32(min(1.0, PEAK_AMPLITUDE / peak)), stems=(), noise=kind, snr_db=None)


def _gain(decibel: float) -> float:
    return float(10 ** (decibel / 20))
