"""Mixtures of free sounds: what the rows are fitted on.

One or two sounds of different classes, at levels of their own, in rooms and through microphones of their own; noise
alone besides. Each mixture is drawn from (seed, number) alone.

Legend: T samples of a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.encoders.yamnet import RATE
from recipes.world.sources import NOISE

LEVEL = 0.08
# decibels: of each sound around LEVEL, of noise beneath the sounds, of noise alone, and of the faint floor of all
EACH_DB, BENEATH_DB, ALONE_DB, FLOOR_DB = (-4.0, 4.0), (-22.0, -8.0), (-55.0, -16.0), -55.0

Waveform = NDArray[np.float32]
Waveforms = dict[str, list[Waveform]]


@dataclass(frozen=True)
class Plan:
    """Says how many mixtures of which kind to make, and their seed."""

    count: int
    seed: int
    augment: bool = True
    noise_alone: bool = False


def mix(waveforms: Waveforms, plan: Plan, number: int, samples: int) -> tuple[Waveform, set[str]]:
    """Mix one window [T] and return it with the classes in it: the same for the same plan and number."""
    rng = np.random.default_rng((plan.seed, number))
    wave = np.zeros(samples, np.float32)
    labels: set[str] = set()
    if plan.noise_alone:
        for _ in range(2 if rng.random() < 0.3 else 1):
            wave += _to_level(_noise(rng, waveforms.get(NOISE, []), samples), _gain(rng, ALONE_DB))
        return _limit(wave), labels
    known = sorted(set(waveforms) - {NOISE})
    for index in rng.choice(len(known), int(rng.integers(1, 3)), replace=False):
        label = known[index]
        waveform = waveforms[label][int(rng.integers(len(waveforms[label])))]
        wave += perform(rng, waveform, samples, augment=plan.augment)
        labels.add(label)
    if waveforms.get(NOISE) and rng.random() < 0.2:
        noise = waveforms[NOISE][int(rng.integers(len(waveforms[NOISE])))]
        wave += perform(rng, noise, samples, augment=plan.augment) * _gain(rng, BENEATH_DB)
    wave += rng.standard_normal(samples).astype(np.float32) * np.float32(10 ** (FLOOR_DB / 20))
    return _limit(wave), labels


def perform(rng: np.random.Generator, waveform: Waveform, samples: int, *, augment: bool) -> Waveform:
    """Make a window [T] of a sound: a long one is cut, a short one repeated after pauses; the loudness is drawn."""
    if augment and rng.random() < 0.5:
        speed = 2 ** rng.uniform(-0.12, 0.12)
        waveform = np.interp(np.arange(0, len(waveform) - 1, speed), np.arange(len(waveform)), waveform).astype(
            np.float32
        )
    if len(waveform) >= samples:
        at = int(rng.integers(len(waveform) - samples + 1))
        wave = waveform[at : at + samples].copy()
    else:
        wave = np.zeros(samples, np.float32)
        at = int(rng.integers(0, samples // 6))
        while at < samples:
            part = waveform[: samples - at]
            wave[at : at + len(part)] += part
            at += len(waveform) + int(rng.uniform(0.1, 0.45) * RATE)
    if augment:
        wave = colour(rng, wave)
    return _to_level(wave, LEVEL * _gain(rng, EACH_DB))


def colour(rng: np.random.Generator, wave: Waveform) -> Waveform:
    """Change a sound as another microphone and room would: a tilt, at times a low-pass, at times reverberation."""
    frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
    spectrum = np.fft.rfft(wave) * _tilt(rng, frequency)
    if rng.random() < 0.3:
        spectrum *= 1 / (1 + (frequency / rng.uniform(2500, 7000)) ** 4)
    if rng.random() < 0.5:
        length = int(rng.uniform(0.1, 0.5) * RATE)
        response = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
        response *= _gain(rng, BENEATH_DB) / np.sqrt((response**2).sum())
        response[0] = 1
        spectrum *= np.fft.rfft(response, len(wave))
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)


def trim(waveform: Waveform) -> Waveform:
    """Cut off the quiet before and after a sound."""
    loud = np.flatnonzero(np.abs(waveform) > 0.02 * max(1e-6, float(np.abs(waveform).max(initial=0.0))))
    return waveform[loud[0] : loud[-1] + 1] if len(loud) else waveform


def _noise(rng: np.random.Generator, recorded: list[Waveform], samples: int) -> Waveform:
    """Draw white to brown noise, hum, or a recording of noise with another tilt."""
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    kind = rng.random()
    if kind < 0.4 or not recorded:
        spectrum = np.fft.rfft(rng.standard_normal(samples)) / np.maximum(frequency, 20) ** rng.uniform(0, 1.2)
        return np.fft.irfft(spectrum, samples).astype(np.float32)
    if kind < 0.52:
        phase = 2 * np.pi * rng.choice((50, 60, 100, 120)) * np.arange(samples) / RATE
        waves = [np.sin(phase * n + rng.uniform(0, 6)) / n ** rng.uniform(0.5, 2) for n in range(1, 12)]
        return np.sum(waves, axis=0).astype(np.float32)
    waveform = recorded[int(rng.integers(len(recorded)))]
    waveform = np.tile(waveform, -(-samples // len(waveform)))
    at = int(rng.integers(len(waveform) - samples + 1))
    tilted = np.fft.rfft(waveform[at : at + samples]) * _tilt(rng, frequency)
    return np.fft.irfft(tilted, samples).astype(np.float32)


def _tilt(rng: np.random.Generator, frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Draw gains that tilt a spectrum by up to 3 dB an octave around 1 kHz, either way."""
    octaves = np.log2(np.clip(frequency, 80, 8000) / 1000)
    return 10 ** (rng.uniform(-3, 3) * octaves / 20)


def _gain(rng: np.random.Generator, decibels: tuple[float, float]) -> float:
    return float(10 ** (rng.uniform(*decibels) / 20))


def _to_level(wave: Waveform, rms: float) -> Waveform:
    return wave * np.float32(rms / np.sqrt(np.mean(np.square(wave, dtype=np.float64)) + 1e-12))


def _limit(wave: Waveform) -> Waveform:
    return wave / np.float32(max(1.0, float(np.abs(wave).max()) / 0.98))
