"""Phrases on soundfonts: what an instrument's player might play, note by note, and the sound of it.

The fonts are recordings of real instruments, a few notes each. Every phrase is drawn from its own seed.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.audio import resample
from avgn.runtime.errors import InputError

SYNTH, SYNTH_VERSION = "tinysoundfont", "0.3.7"
SECONDS = 5.0
# three times what the model hears at: cheap to resample
RATE_PLAYED = 48_000
PHRASES, LONG_TAKES = 5, 4
# General MIDI keeps drums in a bank of their own and plays them on this channel
DRUMS, DRUM_CHANNEL = 128, 9
SILENT = 1e-3
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 2, 3, 5, 7, 9, 10))
STEPS = (-4, -3, -2, -1, -1, 1, 1, 2, 3, 4)
LENGTHS = (0.5, 1, 1, 1, 1.5, 2)


class Part(NamedTuple):
    """A program of a font, its lowest and highest note, and how it is played."""

    bank: int
    program: int
    low: int
    high: int
    style: str


class Note(NamedTuple):
    """Start and length in seconds, MIDI pitch and velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


def compose(rng: np.random.Generator, low: int, high: int, style: str) -> list[Note]:
    """Compose notes between `low` and `high` that fill SECONDS.

    Styles: line, legato, slow (one voice), thirds, chords, strum, broken, roll, pulse (a beat on one key), kit (a drum
    kit), long (one key held: sound effects).
    """
    if style == "long":
        return [Note(0.0, SECONDS, int(rng.integers(low, high + 1)), 90)]
    velocity = rng.uniform(62, 112)

    def note(start: float, length: float, pitch: int, accent: int = 0) -> Note:
        strength = int(np.clip(velocity + accent + rng.normal(0, 6), 20, 127))
        return Note(start, max(0.05, length), int(np.clip(pitch, low, high)), strength)

    if style == "kit":
        notes = [note(*drawn) for drawn in _kit(rng)]
    elif style == "pulse":
        notes = [note(*drawn) for drawn in _pulse(rng, low, high)]
    else:
        notes = [note(*drawn) for drawn in _melody(rng, low, high, style)]
    return [each for each in notes if each.start < SECONDS]


def _kit(rng: np.random.Generator) -> Iterator[tuple[float, float, int, int]]:
    beat = 30 / rng.uniform(75, 150)
    hat = int(rng.choice((42, 44, 46, 51)))
    for k in range(int(SECONDS / beat)):
        yield k * beat, 0.2, hat, -12
        if k % 4 == 0 or rng.random() < 0.15:
            yield k * beat, 0.2, 36, 0
        if k % 4 == 2 or rng.random() < 0.08:
            yield k * beat, 0.2, int(rng.choice((38, 40))), 6
        if rng.random() < 0.1:
            yield k * beat, 0.2, int(rng.choice((41, 43, 45, 48, 49))), 4


def _pulse(rng: np.random.Generator, low: int, high: int) -> Iterator[tuple[float, float, int]]:
    few = high - low < 4
    beat = 1 / rng.uniform(2, 8) if few else rng.uniform(0.35, 1.1)
    key = int(rng.integers(low, high + 1))
    for start in np.arange(0, SECONDS, beat):
        yield float(start), 0.9 * beat, int(rng.integers(low, high + 1)) if few else key


def _melody(rng: np.random.Generator, low: int, high: int, style: str) -> Iterator[tuple[float, float, int]]:
    """Walk on a scale, and yield what the style makes of each step."""
    span = min(high - low, int(rng.integers(10, 22)))
    bottom, root, scale = int(rng.integers(low, high - span + 1)), int(rng.integers(12)), SCALES[rng.integers(4)]
    ladder = [pitch for pitch in range(bottom, bottom + span + 1) if (pitch - root) % 12 in scale] or [bottom]
    beat = rng.uniform(0.5, 1.2) if style == "slow" else 1 / rng.uniform(1.8, 6.5)
    step, start = int(rng.integers(len(ladder))), 0.0

    def at(index: int) -> int:
        return ladder[min(index, len(ladder) - 1)]

    while start < SECONDS:
        length = beat * float(rng.choice(LENGTHS))
        step = int(np.clip(step + rng.choice(STEPS), 0, len(ladder) - 1))
        if style in ("chords", "strum"):
            length *= 2
            first = step // 2 if step < len(ladder) // 2 else step // 3
            for j in range(int(rng.integers(3, 6))):
                late = j * rng.uniform(0.01, 0.03) if style == "strum" else 0.0
                yield start + late, length * (1.2 if style == "strum" else 0.95), at(first + 2 * j)
        elif style == "broken":
            length = 2 * beat
            for j in range(4):
                yield start + j * beat / 2, 2 * beat, at(step // 2 + 2 * j)
        elif style == "roll":
            length = max(length, 0.4) * 1.3
            for j in range(int(length * 10)):
                yield start + j / 10, 0.1, ladder[step]
        elif style == "thirds":
            yield start, 0.95 * length, ladder[step]
            yield start, 0.95 * length, at(step + 2)
        else:
            yield start, length * (1.03 if style == "legato" else rng.uniform(0.6, 0.97)), ladder[step]
        start += length


def open_synth() -> Any:
    """Open a synthesiser without a font. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(SYNTH).Synth(gain=-6.0, samplerate=RATE_PLAYED)
    except ImportError:
        raise InputError(
            f"{SYNTH} plays the soundfonts and is not installed: pip install --no-deps {SYNTH}=={SYNTH_VERSION}"
        ) from None


def seed_of(font: str, label: str, part: Part, take: int) -> np.random.Generator:
    """Return the randomness of one phrase, the same whatever else is played."""
    return np.random.default_rng((zlib.crc32(f"{font}/{label}".encode()), *part[:4], len(part.style), take))


def play(synth: Any, font: int, part: Part, notes: list[Note], rate: int) -> NDArray[np.float32] | None:
    """Play a phrase: mono [SECONDS * rate] with a peak of 0.5; None where the font has nothing for it."""
    drums = part.bank == DRUMS
    channel = DRUM_CHANNEL if drums else 0
    synth.program_select(channel, font, 0 if drums else part.bank, part.program, drums)
    ends = [(min(SECONDS, note.start + note.length), 0, note.pitch, 0) for note in notes]
    events = sorted([(note.start, 1, note.pitch, note.velocity) for note in notes] + ends)
    pieces, done, total = [], 0, round(SECONDS * RATE_PLAYED)
    for seconds, on, pitch, velocity in [*events, (SECONDS, 0, 0, 0)]:
        until = min(total, round(seconds * RATE_PLAYED))
        if until > done:
            pieces.append(np.frombuffer(synth.generate(until - done), np.float32).copy())
            done = until
        if on:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    synth.sounds_off(channel)
    # what the last phrase leaves in the voices
    synth.generate(RATE_PLAYED // 5)
    waveform = np.concatenate(pieces).reshape(-1, 2).mean(axis=1)
    peak = float(np.abs(waveform).max())
    return resample(waveform * np.float32(0.5 / peak), RATE_PLAYED, rate) if peak > SILENT else None
