"""Pieces of long videos: the sound around each picture, with no more of it in memory than that."""

from __future__ import annotations

import os
import shutil
import subprocess
import tracemalloc
import wave
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from avgn.importers import import_dataset
from avgn.importers.cutting import AUDIO_RATE, Clip, Plan, cut_clip, output_folder, pieces
from avgn.runtime import open_media
from avgn.runtime.clock import AudioClock
from avgn.runtime.manifest import Item, read_manifest
from tests.commands import forked, refused
from tests.importers import sets
from tests.importers.layouts import options, place, write_list
from tests.runtime.clips import write_clip

SECONDS, FPS = 60.0, 2
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg writes several sound tracks")


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
    clock = AudioClock(AUDIO_RATE)
    for block in open_media(path).audio():
        clock.push(block.samples, block.rate, block.time)
    clock.close()
    return clock


def read(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.parametrize(("fps", "window"), [(1.0, 1.0), (0.1, 30.0), (None, 20.0)])
def test_a_piece_has_the_sound_around_its_picture(long: Path, tmp_path: Path, fps: float | None, window: float) -> None:
    clock, length = whole_sound(long), round(window * AUDIO_RATE)
    out = output_folder(options(tmp_path, output=tmp_path / "m.jsonl"))
    names = cut_clip(Clip(path=long, stem="long"), out, Plan(fps=fps, window=window))
    assert len(names) == (1 if fps is None else round(SECONDS * fps))
    for name in names:
        # the middle of 60 s is that of the picture there
        at = 30.0 if fps is None else int(name.rpartition("_")[2]) / 1000
        start = min(max(0, round(at * AUDIO_RATE) - length // 2), clock.end - length)
        expected = np.round(32767 * clock.window(start, length)).astype(np.int16)
        assert np.array_equal(read(pieces(out, name)[1]), expected), name


def stamps(names: list[str]) -> list[int]:
    """The times in the names of pieces, in milliseconds."""
    return [int(name.rpartition("_")[2]) for name in names]


def test_pieces_are_the_middles_of_intervals_also_after_a_gap(long: Path, tmp_path: Path) -> None:
    out = output_folder(options(tmp_path, output=tmp_path / "m.jsonl"))
    names = cut_clip(Clip(path=long, stem="long"), out, Plan(fps=0.5, window=1.0))
    assert stamps(names) == list(range(1000, 60_000, 2000))
    times = [0.0, 0.5, 0.6, 1.5, 10.2, 10.3, 10.6, 11.4, 11.5]
    frames = [np.full((32, 32, 3), 20 * number, np.uint8) for number in range(len(times))]
    sound = np.zeros((12 * 8000, 1), np.float32)
    gap = write_clip(tmp_path / "gap.mkv", frames, times, sound, 8000, video_codec="mjpeg", audio_codec="flac")
    names = cut_clip(Clip(path=gap, stem="gap"), out, Plan(fps=1.0, window=1.0))
    # the first picture after the gap, then the middles go on
    assert stamps(names) == [500, 1500, 10_200, 10_600, 11_500]


def test_a_piece_is_nearly_the_picture_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # what a camera gives: smooth, with some grain
    smooth = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
    frames = [np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)] * 10
    times, sound = [number / 10 for number in range(10)], np.zeros((8000, 1), np.float32)
    path = write_clip(tmp_path / "v.mkv", frames, times, sound, 8000, video_codec="ffv1", audio_codec="flac", fps=10)
    out = output_folder(options(tmp_path, output=tmp_path / "m.jsonl"))
    (name,) = cut_clip(Clip(path=path, stem="v"), out, Plan())
    truth = next(open_media(path).video()).rgb
    found = cv2.imread(str(pieces(out, name)[0]))
    assert found is not None
    error = float(np.mean((found[..., ::-1].astype(float) - truth) ** 2))
    assert 10 * np.log10(255**2 / error) > 32


def test_a_video_that_was_changed_is_cut_again_and_others_are_not(long: Path, tmp_path: Path) -> None:
    video = Path(shutil.copyfile(long, tmp_path / "v.mkv"))
    out = output_folder(options(tmp_path, output=tmp_path / "m.jsonl"))

    def cut() -> bytes:
        (name,) = cut_clip(Clip(path=video, stem="v"), out, Plan(window=1.0))
        picture = pieces(out, name)[0]
        found = picture.read_bytes()
        picture.write_bytes(b"of before")
        return found

    first = cut()
    assert cut() == b"of before"
    # another video of the same size
    os.utime(video, (1, 1))
    assert cut() == first


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


@pytest.fixture(scope="module")
def dubbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sound tracks: 300 Hz in English, 900 Hz in German and 2700 Hz of no language."""
    path = tmp_path_factory.mktemp("dubbed") / "dubbed.mkv"
    command: list[object] = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x64:r=10:d=2"]
    for pitch in (300, 900, 2700):
        command += ["-f", "lavfi", "-i", f"sine=f={pitch}:d=2:r=22050"]
    command += ["-map", "0", "-map", "1", "-map", "2", "-map", "3", "-c:v", "mpeg4", "-c:a", "flac"]
    command += ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger", path]
    subprocess.run([str(part) for part in command], check=True, timeout=60)
    return path


def pitch_of(item: Item) -> float:
    samples = read(item.sounds[0]).astype(float)
    return float(np.abs(np.fft.rfft(samples)).argmax() * AUDIO_RATE / len(samples))


@needs_ffmpeg
@pytest.mark.parametrize(
    ("track", "pitch"), [(None, 300), ("2", 900), ("de", 900), ("deu", 900), ("eng", 300), ("3", 2700)]
)
@pytest.mark.parametrize("kind", ["videos", "vggsound"])
def test_the_track_that_was_asked_for_is_cut(
    dubbed: Path, tmp_path: Path, track: str | None, pitch: int, kind: str
) -> None:
    id = "aaaaaaaaaaa_000001"
    root = place(tmp_path / "in", dubbed, f"bell/{id}.mkv")
    write_list(root, "vggsound_single_test.csv", [f"{id},bell"])
    found = import_dataset(kind, options(root, output=tmp_path / "m.jsonl", audio_track=track))
    assert len(found.items) == (2 if kind == "videos" else 1)
    assert [pitch_of(item) for item in found.items] == pytest.approx([pitch] * len(found.items), abs=2)


@needs_ffmpeg
def test_another_track_is_cut_again_and_one_that_is_not_there_is_told(dubbed: Path, tmp_path: Path) -> None:
    root = place(tmp_path / "in", dubbed, "bell/a.mkv")
    arguments = ("import", "videos", root, "--output", tmp_path / "m.jsonl", "--audio-track")
    for track, pitch in (("1", 300), ("ger", 900)):
        assert forked(*arguments, track).returncode == 0
        assert pitch_of(read_manifest(tmp_path / "m.jsonl").items[0]) == pytest.approx(pitch, abs=2)
    before = (tmp_path / "m.jsonl").read_bytes()
    said = refused(*arguments, "fr")
    assert "has no sound track fr: choose one of 1 (flac, eng), 2 (flac, ger), 3 (flac)" in said
    assert (tmp_path / "m.jsonl").read_bytes() == before
    with_one = place(root, dubbed, "bell/b.mkv") / "bell" / "b.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", dubbed, "-map", "0:0", "-map", "0:1", with_one], check=True)
    done = forked(*arguments, "2")
    assert done.returncode == 0 and "has no sound track 2: choose one of 1 (" in done.stdout, done.stdout


def test_a_track_of_sounds_that_are_files_is_refused(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path / "in")
    said = refused("import", "vggsound", root, "--output", tmp_path / "m.jsonl", "--audio-track", "2")
    assert "--audio-track is for videos that are cut" in said and not (tmp_path / "m.jsonl").exists()
