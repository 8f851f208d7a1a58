"""Pieces of long videos: the sound around each picture, with no more of it in memory than that."""

from __future__ import annotations

import tracemalloc
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from avgn.importers.cutting import SOUND_RATE, Clip, Plan, cut_clip, output_folder, pieces
from avgn.runtime import open_media
from avgn.runtime.clock import AudioClock
from tests.importers.layouts import options
from tests.runtime.clips import write_clip

SECONDS, FPS = 60.0, 2


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose sound rises from 100 to 650 Hz, ends after 55 s, and is read at another rate."""
    path = tmp_path_factory.mktemp("long") / "long.mkv"
    frames = [np.full((32, 32, 3), number % 200, np.uint8) for number in range(round(SECONDS * FPS))]
    time = np.arange(round(55 * 16_000)) / 16_000
    sound = 0.3 * np.sin(2 * np.pi * (100 * time + 5 * time**2)).astype(np.float32)[:, None]
    times = [number / FPS for number in range(len(frames))]
    return write_clip(path, frames, times, sound, 16_000, video_codec="mjpeg", audio_codec="flac", fps=FPS)


def whole_sound(path: Path) -> AudioClock:
    clock = AudioClock(SOUND_RATE)
    for block in open_media(path).audio():
        clock.push(block.samples, block.rate, block.time)
    clock.close()
    return clock


def read(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.parametrize(("fps", "window"), [(1.0, 1.0), (0.1, 30.0), (None, 20.0)])
def test_a_piece_has_the_sound_around_its_picture(long: Path, tmp_path: Path, fps: float | None, window: float) -> None:
    clock, length = whole_sound(long), round(window * SOUND_RATE)
    out = output_folder(options(tmp_path, output=tmp_path / "m.jsonl"))
    names = cut_clip(Clip(path=long, stem="long"), out, Plan(fps=fps, window=window))
    assert len(names) == (1 if fps is None else round(SECONDS * fps))
    for name in names:
        # the middle of 60 s is that of the picture there
        at = 30.0 if fps is None else int(name.rpartition("_")[2]) / 1000
        start = min(max(0, round(at * SOUND_RATE) - length // 2), clock.end - length)
        expected = np.round(32767 * clock.window(start, length)).astype(np.int16)
        assert np.array_equal(read(pieces(out, name)[1]), expected), name


def test_the_sound_of_a_long_video_is_not_kept(long: Path, tmp_path: Path) -> None:
    out = output_folder(options(tmp_path, output=tmp_path / "m.jsonl"))
    tracemalloc.start()
    try:
        cut_clip(Clip(path=long, stem="long"), out, Plan(fps=0.5, window=1.0))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # all of it is 4.9 MB
    assert most < 2.5e6
