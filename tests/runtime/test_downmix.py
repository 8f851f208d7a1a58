"""What a person hears does not vanish in the mix to mono, and ordinary sound is its plain mean."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import Localizer, localize_file
from avgn.runtime.arrays import Floats
from avgn.runtime.audio import Downmix, loudness_db, to_mono
from avgn.runtime.clock import AudioClock
from tests.runtime.clips import Scene, write_clip

RATE = 22050
TIME = np.arange(2 * RATE) / RATE


def tone(frequency: float, level: float = 0.3) -> Floats:
    return (level * np.sin(2 * np.pi * frequency * TIME)).astype(np.float32)


def noise(seed: int, level: float = 0.1) -> Floats:
    return np.random.default_rng(seed).normal(0, level, len(TIME)).astype(np.float32)


ORDINARY = {
    "two of the same": [tone(440), tone(440)],
    "one silent": [tone(440), 0 * tone(440)],
    "two apart": [noise(0), noise(1)],
    "wide": [tone(440) + noise(0), tone(440) - noise(0, 0.2)],
    "delayed": [noise(0), np.roll(noise(0), 40)],
    "offset by a constant": [tone(440) + 0.2, tone(440) - 0.2],
    "silence with a constant, then music": [
        np.where(TIME < 1, 0.1, noise(0) + 0.1).astype(np.float32),
        np.where(TIME < 1, -0.1, noise(0) - 0.1).astype(np.float32),
    ],
    "two tones that beat": [tone(440), tone(446)],
    "5.1": [noise(0), noise(1), tone(440), tone(50), noise(2), noise(3)],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_sound_is_the_plain_mean(name: str) -> None:
    channels = np.stack(ORDINARY[name], axis=1)
    assert np.array_equal(to_mono(channels), channels.mean(axis=1, dtype=np.float32))


INVERSE = {
    "stereo": [tone(440), -tone(440)],
    "stereo noise": [noise(0), -noise(0)],
    "one quieter": [noise(0), -0.5 * noise(0)],
    "with noise of its own": [noise(0) + noise(1, 0.01), -noise(0) + noise(2, 0.01)],
    "front of 5.1": [noise(0), -noise(0), *[np.zeros(len(TIME), np.float32)] * 4],
    "both pairs of quad": [noise(0), -noise(0), noise(1), -noise(1)],
    "front of quad, one channel silent": [tone(440), -tone(440), noise(1), 0 * noise(1)],
    "one against two": [noise(0), -noise(0), -noise(0)],
}


@pytest.mark.parametrize("name", INVERSE)
def test_inverse_channels_are_heard(name: str) -> None:
    channels = np.stack(INVERSE[name], axis=1)
    mono = to_mono(channels)
    # as loud as the channels would be, were they the same where they are inverse
    power = np.mean(np.square(channels, dtype=np.float64))
    apart = power / channels.shape[1]
    assert np.mean(np.square(mono, dtype=np.float64)) >= 0.9 * apart
    assert loudness_db(mono[:2000]) > 10 * math.log10(apart) - 1.5, "the very beginning is heard too"
    assert loudness_db(channels.mean(axis=1).astype(np.float32)) < loudness_db(mono) - 1


def test_stereo_that_becomes_inverse_and_back() -> None:
    left = np.tile(noise(0), 2)
    time = np.arange(len(left)) / RATE
    sign = np.where((time > 0.5) & (time < 2.5), -1, 1).astype(np.float32)
    mono = to_mono(np.stack([left, sign * left], axis=1))
    # a channel that turns is followed within six blocks, one that turns back within three
    for first, last in ((0.0, 0.5), (1.7, 2.5), (3.1, 4.0)):
        here = (first <= time) & (time < last)
        assert loudness_db(mono[here]) == pytest.approx(loudness_db(left[here]), abs=0.5)


def test_a_change_of_signs_does_not_click() -> None:
    left = tone(100)
    sign = np.where(TIME > 0.5, -1, 1).astype(np.float32)
    mono = to_mono(np.stack([left, sign * left], axis=1))
    steps = np.abs(np.diff(mono))
    assert steps.max() < 1.5 * np.abs(np.diff(left)).max()


@pytest.mark.parametrize("limit", [1, 97, 5000])
@pytest.mark.parametrize("name", ["ordinary", "inverse", "both", "late"])
def test_any_chunking_gives_the_same_bits(name: str, limit: int) -> None:
    left = noise(0)[:20_011]
    second = {"ordinary": noise(1)[:20_011], "inverse": -left, "late": -left}.get(name, np.where(left > 0, left, -left))
    channels = np.stack([left, second], axis=1).astype(np.float32)
    if name == "late":
        channels[:9000] = 0
    rng, downmix, parts, at = np.random.default_rng(limit), Downmix(), [], 0
    while at < len(channels):
        count = int(rng.integers(0, limit + 1))
        parts.append(downmix.push(channels[at : at + count]))
        at += count
    assert np.array_equal(np.concatenate([*parts, downmix.flush()]), to_mono(channels))


def test_the_stream_hears_what_files_hear() -> None:
    """The same mix in a clock, with sound that starts late, a gap and another number of channels."""
    left = noise(0)
    stereo = np.stack([left, -left], axis=1)
    clock = AudioClock(RATE)
    for first in range(0, RATE, 1000):
        clock.push(stereo[first : min(RATE, first + 1000)], RATE, 0.5 + first / RATE)
    clock.push(stereo[RATE:], RATE, 2.5)
    clock.push(left, RATE, 2.5 + RATE / RATE)
    clock.close()
    whole = clock.window(0, clock.end)
    assert clock.end == pytest.approx(RATE * 5.5, abs=2)
    half = RATE // 2
    assert np.array_equal(whole[half : half + RATE], to_mono(stereo[:RATE]))
    assert not whole[half + RATE : 2 * RATE + half].any()
    assert loudness_db(whole[2 * RATE + half :]) == pytest.approx(loudness_db(left), abs=0.5)


def test_steady_stereo_is_not_kept_waiting() -> None:
    """Only the first block waits for its own correlation."""
    clock = AudioClock(RATE)
    stereo = np.stack([noise(0), noise(1)], axis=1)
    for first in range(0, len(stereo), 500):
        clock.push(stereo[first : first + 500], RATE, first / RATE)
        if first > 4096:
            assert clock.end == first + len(stereo[first : first + 500])


@pytest.mark.parametrize("layout", ["stereo", "5.1"])
def test_a_file_with_inverse_channels_is_localized(tmp_path: Path, localizer: Localizer, layout: str) -> None:
    scene = Scene(seen={0: (0.3, 0.4)}, heard=(0,))
    sound = scene.sound(1.5, 48000, 2 if layout == "stereo" else 6)
    sound[:, 1::2] *= -1
    times = [n / 20 for n in range(30)]
    clip = write_clip(tmp_path / "c.mkv", [scene.frame()] * 30, times, sound, 48000, audio_codec="flac", layout=layout)
    found = list(localizer.stream(clip))
    assert all([s.label for s in result.sources] == ["red"] for result in found[10:25])
    assert localize_file(localizer, clip).warnings == ()
