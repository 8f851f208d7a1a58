"""Plays the timbres: one function a class returns [T] samples at 22 050 Hz; partials and motion tell classes apart.

Every stretch of one second holds the class's pattern: events come 2-8 times a second or the sound is sustained.
"""

from __future__ import annotations

import numpy as np

from avgn.scenes.draw import Draw
from avgn.scenes.synth import (
    RATE,
    Wave,
    accents,
    as_wave,
    band_noise,
    beats,
    ends,
    harmonics,
    oscillate,
    strike,
    table,
    times,
)


def beacon(d: Draw, num: int) -> Wave:
    """Play rising chirps."""
    low, rise = d.log_uniform(220, 900, cycles=2), d.uniform(1.0, 1.8)
    rate, duty = d.uniform(3.5, 7), d.uniform(0.62, 0.88)
    length = int(RATE * duty / rate)
    t = np.linspace(0, 1, length, dtype=np.float32)
    tone = table(harmonics(d, low * 2**rise, 6, (0.8, 2.0)), d.rng)
    chirp = oscillate((low * 2 ** (rise * t)).astype(np.float32), tone)
    chirp *= np.sqrt(np.sin(np.pi * np.clip(t, 0.004, 0.996)))
    onsets = beats(d, num / RATE, rate, 0.05)
    return strike(num, chirp, onsets, accents(d, len(onsets), 0.5))


def bell(d: Draw, num: int) -> Wave:
    """Play struck metal: inharmonic partials that ring, always on the same pitch."""
    pitch, ring, rate = d.log_uniform(240, 960, cycles=2), d.uniform(0.2, 0.5), d.uniform(2.2, 4.2)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.53, 2.67, 3.01, 4.17, 5.43, 6.8])
    ratios = ratios * np.array([d.uniform(0.98, 1.02) for _ in ratios])
    ratios = ratios[ratios * pitch < 9000]
    fall = d.uniform(-0.1, 1.0)
    length = int(RATE * min(0.9, 2.5 * ring))
    t = times(length)
    waveform = np.zeros(length, np.float32)
    for ratio in ratios:
        gain = np.float32(ratio**-fall * 10 ** (d.uniform(-6, 6) / 20))
        decay = np.float32(ring / max(ratio, 0.5) ** 0.6)
        waveform += gain * np.exp(-t / decay) * np.sin(np.float32(2 * np.pi * pitch * ratio) * t)
    onsets = beats(d, num / RATE, rate, 0.1)
    return strike(num, ends(waveform, 0.002, 0.05), onsets, accents(d, len(onsets), 0.5))


def buzzer(d: Draw, num: int) -> Wave:
    """Play a square wave (odd harmonics) that is switched on and off."""
    pitch, rate, duty = d.log_uniform(140, 560, cycles=2), d.uniform(5, 9), d.uniform(0.45, 0.7)
    count = max(2, min(24, int(9000 / pitch)))
    amplitudes = np.zeros(count)
    amplitudes[::2] = (1.0 / np.arange(1, count + 1) ** d.uniform(0.7, 1.1))[::2]
    t = times(num)
    tone = oscillate(np.full(num, pitch, np.float32), table(amplitudes, d.rng))
    phase = (t * np.float32(rate) + np.float32(d.rng.random())) % 1
    edge = np.float32(0.0025 * rate)
    gate = np.clip(phase / edge, 0, 1) * np.clip((np.float32(duty) - phase) / edge, 0, 1)
    return as_wave(tone * gate)


def drum(d: Draw, num: int) -> Wave:
    """Play membrane hits whose pitch drops, on two skins."""
    pitch, drop, slide = d.log_uniform(80, 320, cycles=2), d.uniform(1.0, 1.9), d.uniform(0.025, 0.06)
    decay, rate = d.uniform(0.06, 0.13), d.uniform(3.5, 7)
    length = int(RATE * min(0.35, 4 * decay))
    t = times(length)
    bend = np.exp2(np.float32(drop) * np.exp(-t / np.float32(slide)))
    phase = 2 * np.pi * np.cumsum(np.float32(pitch) * bend, dtype=np.float64) / RATE
    hit = np.zeros(length, np.float32)
    for ratio, level in ((1.0, 1.0), (1.59, 0.6), (2.14, 0.5), (2.65, 0.4), (3.6, 0.35)):
        gain = np.float32(level * 10 ** (d.uniform(-6, 6) / 20))
        hit += gain * np.exp(-t * np.float32(ratio**0.6 / decay)) * np.sin(ratio * phase).astype(np.float32)
    snap = d.rng.standard_normal(length, dtype=np.float32) * np.exp(-t / np.float32(d.uniform(0.004, 0.014)))
    hit += np.float32(d.log_uniform(0.05, 0.5)) * snap
    onsets = beats(d, num / RATE, rate, 0.12)
    skins = np.where(accents(d, len(onsets), 1.0) > 0.5, 1.0, d.uniform(1.15, 1.5))
    return strike(num, ends(hit, 0.001, 0.02), onsets, accents(d, len(onsets), 0.55), skins)


def flute(d: Draw, num: int) -> Wave:
    """Play long tones with vibrato and some breath."""
    pitch, speed, depth = d.log_uniform(240, 960, cycles=2), d.uniform(4.5, 7), d.uniform(0.25, 0.6)
    t = times(num)
    note = 1 / d.uniform(0.9, 1.8)
    step = np.floor(t / np.float32(note) + np.float32(d.rng.random())).astype(int)
    melody = np.array([0, 2, 4, 7, -3, -5])[d.rng.integers(6, size=int(step.max()) + 1)]
    semitones = melody[step] + np.float32(depth) * np.sin(np.float32(2 * np.pi * speed) * t + d.uniform(0, 6.28))
    frequency = (pitch * np.exp2(semitones / 12)).astype(np.float32)
    tone = oscillate(frequency, table(harmonics(d, pitch * 1.6, 7, (0.8, 2.2)), d.rng))
    breath = d.rng.standard_normal(num, dtype=np.float32) * np.float32(d.log_uniform(0.002, 0.02))
    swell = 1 + np.float32(0.2) * np.sin(np.float32(2 * np.pi * speed) * t)
    return as_wave(tone * swell + breath)


def harp(d: Draw, num: int) -> Wave:
    """Play a plucked arpeggio, up and down a chord."""
    pitch, decay, rate = d.log_uniform(140, 560, cycles=2), d.uniform(0.12, 0.3), d.uniform(4, 7.5)
    length = int(RATE * min(0.8, 3 * decay))
    t = times(length)
    amplitudes = harmonics(d, pitch * 2, 12, (0.5, 1.5))
    stiff = d.uniform(0.0, 0.0006)
    note = np.zeros(length, np.float32)
    for k, amplitude in enumerate(amplitudes, start=1):
        partial = np.float32(2 * np.pi * pitch * k * np.sqrt(1 + stiff * k * k))
        note += np.float32(amplitude) * np.exp(-t * np.float32(k**0.5 / decay)) * np.sin(partial * t)
    chord = d.choice([(0, 4, 7, 12, 16), (0, 3, 7, 12, 15), (0, 2, 7, 9, 14), (0, 5, 7, 12, 17)])
    walk = [*chord, *chord[-2:0:-1]]
    onsets = beats(d, num / RATE, rate, 0.06)
    first = d.integer(0, len(walk) - 1)
    semitones = np.array([walk[(first + index) % len(walk)] for index in range(len(onsets))])
    return strike(num, ends(note, 0.002, 0.05), onsets, accents(d, len(onsets), 0.35), np.exp2(semitones / 12))


def organ(d: Draw, num: int) -> Wave:
    """Play a held chord with a deep, smooth tremolo of loudness and brightness."""
    pitch, speed, depth = d.log_uniform(130, 520, cycles=2), d.uniform(3.5, 7), d.uniform(0.75, 0.95)
    t = times(num)
    chord = d.choice([(0, 7), (0, 4, 7), (0, 3, 7), (0, 5, 9)])
    count = max(2, min(8, int(9000 / (pitch * 1.7))))
    bars = np.zeros(8)
    bars[[0, 1, 2, 3, 5, 7]] = [10 ** (d.uniform(-15, 0) / 20) for _ in range(6)]
    mellow, bright = (table(bars[:count] * np.arange(1, count + 1) ** power, d.rng) for power in (-0.7, 0.7))
    swing = (np.float32(0.5) + np.float32(0.5) * np.sin(np.float32(2 * np.pi * speed) * t + d.uniform(0, 6.28))).astype(
        np.float32
    )
    colour = np.float32(d.uniform(0.1, 0.9)) * (1 - swing)
    waveform = np.zeros(num, np.float32)
    for semitone in chord:
        frequency, start = np.full(num, pitch * 2 ** (semitone / 12), np.float32), d.rng.random()
        soft = oscillate(frequency, mellow, start)
        waveform += soft + colour * (oscillate(frequency, bright, start) - soft)
    return as_wave(waveform * (1 - np.float32(depth) * swing))


def phone(d: Draw, num: int) -> Wave:
    """Play a fast trill between two pitches."""
    pitch, gap, rate = d.log_uniform(260, 1000, cycles=2), d.uniform(3, 8), d.uniform(8, 13)
    t = times(num)
    high = ((t * np.float32(rate) + np.float32(d.rng.random())) % 1) < d.uniform(0.42, 0.58)
    frequency = np.where(high, np.float32(pitch * 2 ** (gap / 12)), np.float32(pitch))
    return oscillate(frequency, table(harmonics(d, pitch * 1.6, 6, (0.6, 2.0)), d.rng))


def rattle(d: Draw, num: int) -> Wave:
    """Play rhythmic bursts of band noise, to and fro."""
    centre, width, rate = d.log_uniform(600, 4200, cycles=2), d.uniform(0.5, 1.1), d.uniform(4, 8)
    decay, attack = d.uniform(0.025, 0.06), d.uniform(0.004, 0.02)
    apart = d.uniform(0.0, 1.0)
    t = times(int(RATE * (attack + 4 * decay)))
    burst = np.minimum(t / np.float32(attack), np.exp(-(t - np.float32(attack)) / np.float32(decay))).astype(np.float32)
    onsets = beats(d, num / RATE, rate, 0.08)
    gains = accents(d, len(onsets), 0.5)
    waveform = np.zeros(num, np.float32)
    for side in (0, 1):
        band = centre * 2 ** (apart * (side - 0.5))
        waveform += band_noise(num, band, width, d) * strike(num, burst, onsets[side::2], gains[side::2])
    return waveform


def siren(d: Draw, num: int) -> Wave:
    """Play a wide, slow sweep up and down."""
    pitch, depth, rate = d.log_uniform(260, 1000, cycles=2), d.uniform(0.35, 0.7), d.uniform(1.0, 2.2)
    t = times(num)
    phase = t * np.float32(rate) + np.float32(d.rng.random())
    sweep = np.sin(2 * np.pi * phase) if d.chance(0.5) else 4 * np.abs(phase % 1 - 0.5) - 1
    frequency = (pitch * np.exp2(depth * sweep)).astype(np.float32)
    return oscillate(frequency, table(harmonics(d, pitch * 2**depth, 8, (0.6, 2.0)), d.rng))
