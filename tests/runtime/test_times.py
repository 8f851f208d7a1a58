"""Times count from a file's first picture or sound, whatever its timestamps claim; ffprobe is the second opinion."""

from __future__ import annotations

import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.runtime import Localizer, localize_file, open_media
from avgn.runtime.media import AudioBlock, MediaFile
from avgn.runtime.pictures import Pictures
from avgn.runtime.timeline import Placer, Timeline
from tests.runtime.clips import Scene, read_video, rewrite, still_clip, write_clip
from tests.runtime.ffmpeg import ffmpeg, frame_times, make_clip, needs_ffmpeg

SCENE = Scene(seen={0: (0.25, 0.3), 1: (0.7, 0.6)}, heard=(0, 2))
PCM = ("-c:a", "pcm_s16le")
AAC = ("-c:a", "aac")


def times_of(media: MediaFile) -> tuple[list[float], list[float]]:
    return [frame.time for frame in media.video()], [block.time for block in media.audio()]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hour.mkv", (*PCM, "-output_ts_offset", "3600")),
        ("hour.mov", (*PCM, "-output_ts_offset", "3600")),
        ("hour.mp4", (*AAC, "-output_ts_offset", "3600")),
        ("hour.nut", (*PCM, "-output_ts_offset", "3600")),
        ("hour.ts", (*AAC, "-output_ts_offset", "3600")),
        ("epoch.mkv", (*PCM, "-output_ts_offset", "1700000000")),
        ("epoch.mov", (*PCM, "-output_ts_offset", "1700000000")),
        ("epoch.nut", (*PCM, "-output_ts_offset", "1700000000")),
        ("below-zero.mkv", (*PCM, "-output_ts_offset", "-0.5", "-avoid_negative_ts", "disabled")),
        ("plain.avi", PCM),
        ("b-frames.mkv", (*AAC, "-bf", "2", "-preset", "fast")),
    ],
)
def test_times_are_ffprobes_from_the_first_one(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    clip = make_clip(tmp_path / name, *options)
    pictures, sounds = np.array(frame_times(clip, "v")), np.array(frame_times(clip, "a"))
    # Matroska's pictures before zero have no times of their own
    zero = min(np.nanmin(pictures - np.arange(20) / 10), sounds[0])
    found = times_of(open_media(clip))
    known = np.isfinite(pictures)
    assert np.array(found[0])[known] == pytest.approx(pictures[known] - zero, abs=1e-3)
    assert np.diff(found[0]) == pytest.approx(0.1, abs=1e-3)
    assert found[1][:5] == pytest.approx([at - zero for at in sounds[:5]], abs=1e-3)


@needs_ffmpeg
@pytest.mark.parametrize("options", [("-bf", "2", "-preset", "fast"), ("-c:v", "mpeg4", "-bf", "2")])
def test_pictures_that_avi_keeps_out_of_order(tmp_path: Path, options: tuple[str, ...]) -> None:
    # AVI has no times of presentation, and what FFmpeg makes of B-frames is no order
    clip = make_clip(tmp_path / "b.avi", *PCM, *options)
    pictures, sounds = times_of(open_media(clip))
    assert pictures == pytest.approx(np.arange(20) / 10, abs=1e-3) and sounds[0] == 0
    assert [frame.time for frame in Pictures(clip)] == pictures


@needs_ffmpeg
def test_pictures_that_go_on_are_no_corrupt_ones(tmp_path: Path) -> None:
    # Theora says with a packet of no bytes that the picture stays
    clip = tmp_path / "still.ogv"
    ffmpeg(*("-f", "lavfi", "-i", "color=gray:s=64x64:r=10:d=1"), *("-f", "lavfi", "-i", "sine=d=1"), "-shortest", clip)
    media = open_media(clip)
    assert [frame.time for frame in media.video()] == pytest.approx(frame_times(clip, "v"), abs=1e-3)
    assert media.warnings() == []


@needs_ffmpeg
@pytest.mark.parametrize("late", ["pictures", "sound"])
def test_the_offset_between_sound_and_pictures_is_kept(tmp_path: Path, localizer: Localizer, late: str) -> None:
    base = make_clip(tmp_path / "base.mkv", *PCM)
    inputs = ("-itsoffset", "0.7", "-i", base, "-i", base)
    maps = ("-map", "0:v", "-map", "1:a") if late == "pictures" else ("-map", "1:v", "-map", "0:a")
    clip = tmp_path / "offset.mkv"
    ffmpeg(*inputs, *maps, "-c", "copy", "-output_ts_offset", "1700000000", clip)
    pictures, sounds = times_of(open_media(clip))
    assert (pictures if late == "pictures" else sounds)[0] == pytest.approx(0.7, abs=0.002)
    assert (sounds if late == "pictures" else pictures)[0] == 0
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert 0 < summary.real_time_factor < 20 and summary.seconds == pytest.approx(2.7, abs=0.1)
    assert summary.warnings == ()
    shown, heard = frame_times(tmp_path / "o.mp4", "v"), frame_times(tmp_path / "o.mp4", "a")
    assert shown[0] == pytest.approx(0.7 if late == "pictures" else 0, abs=0.01)
    # encoded sound begins at zero, with silence before it
    assert heard[0] == pytest.approx(0, abs=0.03) and (tmp_path / "o.mp4").stat().st_size < 300_000


@needs_ffmpeg
def test_an_hour_of_offset_costs_nothing(tmp_path: Path, localizer: Localizer) -> None:
    clip = make_clip(tmp_path / "c.mkv", *PCM, "-output_ts_offset", "1700000000")
    begin = time.perf_counter()
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert time.perf_counter() - begin < 30 and summary.seconds == pytest.approx(2.0, abs=0.1)
    _, times, seconds = read_video(tmp_path / "o.mp4")
    assert times == pytest.approx(np.arange(20) / 10, abs=2e-3) and seconds == pytest.approx(2.0, abs=0.1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds without priming or B-frames."""
    how: dict[str, Any] = {"video_codec": "mjpeg", "audio_codec": "pcm_s16le", "rate": 8000, "fps": 10}
    return still_clip(tmp_path_factory.mktemp("plain") / "plain.mkv", SCENE, seconds=4.0, **how)


@pytest.mark.parametrize("gap", [61.0, 3600.0, 1e6])
def test_a_time_without_pictures_and_sound_is_skipped(
    tmp_path: Path, plain: Path, localizer: Localizer, gap: float
) -> None:
    clip = rewrite(plain, tmp_path / "gap.mkv", lambda kind, at, n: at if at < 2 - 1e-6 else at + gap)
    begin = time.perf_counter()
    media = open_media(clip)
    results = list(localizer.stream(media))
    assert [r.time for r in results] == pytest.approx(np.arange(40) / 10, abs=0.07)
    # both went on at the same place
    pictures, sounds = times_of(media)
    after = next(at for at in sounds if at >= 1.99)
    assert pictures[20] - after == pytest.approx(0, abs=0.13) and np.diff(sounds) == pytest.approx(0.12, abs=0.13)
    assert time.perf_counter() - begin < 30
    (said,) = media.warnings()
    assert said.startswith(f"{clip} has neither pictures nor sound for ") and said.endswith("that time is left out")
    assert f"{gap - 0.1:.0f}"[:3] in said or f"{gap:.0f}"[:3] in said


def test_the_overlay_and_its_sound_skip_the_same(tmp_path: Path, plain: Path, localizer: Localizer) -> None:
    clip = rewrite(plain, tmp_path / "gap.mkv", lambda kind, at, n: at if at < 2 - 1e-6 else at + 86400)
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert summary.seconds == pytest.approx(4.0, abs=0.2) and len(summary.warnings) == 1
    frames, _, seconds = read_video(tmp_path / "o.mp4")
    assert len(frames) == 40 and seconds == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize("absent", ["video", "audio"])
def test_a_gap_of_one_track_alone_is_kept(tmp_path: Path, absent: str) -> None:
    """Slides that stay for a minute and a half, and sound that is silent for as long."""
    times = [0.0, 1.0, 2.0, 95.0, 96.0] if absent == "video" else [float(n) for n in range(97)]
    sound = SCENE.sound(97.0, 8000)
    gap = None if absent == "video" else (2.0, 94.0)
    frames = [SCENE.frame(48, 64)] * len(times)
    how: dict[str, Any] = {"video_codec": "mjpeg", "audio_codec": "pcm_s16le", "fps": 1, "ticks": 0, "gap": gap}
    media = open_media(write_clip(tmp_path / "slides.mkv", frames, times, sound, 8000, **how))
    pictures, sounds = times_of(media)
    assert pictures == pytest.approx(times, abs=0.002) and media.warnings() == []
    assert sounds[-1] == pytest.approx(96.9, abs=0.2)


def presentation_times(data: bytes | bytearray) -> list[int]:
    """Where the timestamps of a transport stream's pictures lie."""
    found, at = [], data.find(b"\x00\x00\x01\xe0")
    while at >= 0:
        if data[at + 7] & 0x80:
            found.append(at + 9)
        at = data.find(b"\x00\x00\x01\xe0", at + 4)
    return found


@needs_ffmpeg
@pytest.mark.parametrize("leap", [60_000.0, 5000.0, 90.0, -50.0, -1.9])
def test_one_timestamp_that_leaps_is_replaced(tmp_path: Path, leap: float) -> None:
    clip = make_clip(tmp_path / "c.ts", *AAC, "-bf", "0", "-output_ts_offset", "100")
    truth = times_of(open_media(clip))[0]
    data = bytearray(clip.read_bytes())
    at = presentation_times(data)[10]
    ticks = round((frame_times(clip, "v")[10] + leap) * 90000)
    mark = data[at] & 0xF0
    data[at] = mark | (ticks >> 29) & 0x0E | 1
    data[at + 1 : at + 3] = ((ticks >> 14) & 0xFFFE | 1).to_bytes(2, "big")
    data[at + 3 : at + 5] = ((ticks << 1) & 0xFFFE | 1).to_bytes(2, "big")
    clip.write_bytes(data)
    pictures, sounds = times_of(open_media(clip))
    assert pictures == pytest.approx(truth, abs=0.003) and sounds[-1] < 3


@needs_ffmpeg
def test_a_clock_that_begins_anew_goes_on(tmp_path: Path, localizer: Localizer) -> None:
    piece = make_clip(tmp_path / "piece.ts", *AAC)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * piece.read_bytes())
    pictures, sounds = times_of(open_media(twice))
    assert len(pictures) == 40 and np.diff(pictures) == pytest.approx(0.1, abs=0.12)
    assert pictures[-1] == pytest.approx(3.9, abs=0.2) and sounds[-1] == pytest.approx(4.0, abs=0.2)


@needs_ffmpeg
def test_frames_before_the_first_timestamp(tmp_path: Path) -> None:
    """A stream that was cut begins with pictures without timestamps: times never run backwards."""
    clip = make_clip(tmp_path / "c.ts", *AAC, "-bf", "0", "-output_ts_offset", "100")
    truth = times_of(open_media(clip))[0]
    data, cleared = bytearray(clip.read_bytes()), 0
    at = data.find(b"\x00\x00\x01\xe0")
    while at >= 0 and cleared < 4:
        data[at + 7] &= 0x3F
        data[at + 9 : at + 9 + data[at + 8]] = b"\xff" * data[at + 8]
        cleared += 1
        at = data.find(b"\x00\x00\x01\xe0", at + 4)
    clip.write_bytes(data)
    pictures = times_of(open_media(clip))[0]
    assert len(pictures) == 20 and np.diff(pictures) == pytest.approx(0.1, abs=0.01)
    assert pictures == pytest.approx(truth, abs=0.12)


@needs_ffmpeg
def test_a_file_without_any_timestamps(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "c.mp4", *AAC, fps=25)
    ffmpeg("-i", clip, "-c", "copy", "-an", tmp_path / "raw.h264")
    ffmpeg("-i", clip, tmp_path / "sound.wav")
    media = open_media(tmp_path / "raw.h264", tmp_path / "sound.wav")
    pictures = times_of(media)[0]
    assert len(pictures) == 50 and np.diff(pictures) == pytest.approx(1 / 25, abs=1e-6) and pictures[0] == 0


def test_placer_without_and_with_timestamps() -> None:
    placer = Placer(Timeline(), 0.0, None)
    stamps = [None, None, 0.2, None, 0.4, 0.35, 0.5]
    times = [placer.place(stamp, 0.1, lambda: None) for stamp in stamps]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.35, 0.5])


def placed(placer: Placer, stamps: list[float], duration: float = 0.1) -> list[float]:
    """Times of pieces with these timestamps, each of which sees the one after it."""
    following = iter([*stamps[1:], None])
    found = []
    for stamp in stamps:
        after = next(following)
        found.append(placer.place(stamp, duration, partial(lambda value: value, after)))
    return found


def test_a_clock_that_begins_anew_for_both_tracks_is_one_new_clock() -> None:
    """The second track takes what the first one found, unless it is somewhere else."""
    timeline = Timeline()
    first, second, third = Placer(timeline, 0.0, None), Placer(timeline, 0.0, None), Placer(timeline, 0.0, None)
    assert placed(first, [10.0, 10.1, 0.0, 0.1]) == pytest.approx([10.0, 10.1, 10.2, 10.3])
    # half a second is missing where the clock begins anew, as there is beside the first one's
    assert placed(second, [10.6, 1.0, 1.1]) == pytest.approx([10.6, 11.2, 11.3]) and len(timeline.shifts) == 2
    # of three seconds nothing is said by the first one
    assert placed(third, [13.2, 0.1, 0.2]) == pytest.approx([13.2, 13.3, 13.4]) and len(timeline.shifts) == 3


def test_a_clock_that_steps_back_a_little_and_goes_on_from_there_begins_anew() -> None:
    """No single timestamp that leaps: the next one is beside it, though hardly a second before where it should be."""
    assert placed(Placer(Timeline(), 0.0, None), [9.9, 8.95, 9.12, 9.2]) == pytest.approx([9.9, 10.0, 10.17, 10.25])


def test_a_gap_of_a_clock_that_began_anew_is_not_looked_for_in_the_other_track() -> None:
    """Its times are those of another clock there."""
    asked: list[tuple[float, float]] = []

    def content(start: float, end: float) -> list[tuple[float, float]]:
        asked.append((start, end))
        return [(start, end)]

    placer = Placer(Timeline(), 0.0, content)
    # something fills the first gap, so that it stays
    assert placed(placer, [0.0, 200.0]) == pytest.approx([0.0, 200.0]) and len(asked) == 1
    assert placed(placer, [1.0, 1.1, 301.1]) == pytest.approx([200.1, 200.2, 200.3]) and len(asked) == 1


def test_gaps_found_out_of_order_add_up() -> None:
    timeline = Timeline()
    timeline.skip(1000.0, 2000.0, None)
    timeline.skip(10.0, 110.0, lambda start, end: [(30.0, 32.0)])
    assert timeline.gaps == [(32.0, 110.0), (1000.0, 2000.0)]
    assert [timeline.time(at) for at in (5, 32, 100, 110, 999, 1500, 2001)] == [5, 32, 32, 32, 921, 922, 923]
    # known gaps are not taken out twice
    timeline.skip(0.0, 3000.0, lambda start, end: [(0.0, 32.0), (110.0, 1000.0), (2000.0, 3000.0)])
    assert len(timeline.gaps) == 2


@needs_ffmpeg
@pytest.mark.parametrize("rate", [(1, 1_000_000), (1, 0), (0, 0), (1_000_000, 1)])
def test_unbelievable_frame_rates(tmp_path: Path, localizer: Localizer, rate: tuple[int, int]) -> None:
    clip = make_clip(tmp_path / "c.avi", *PCM)
    data = bytearray(clip.read_bytes())
    at = data.index(b"strh")
    data[at + 28 : at + 36] = b"".join(value.to_bytes(4, "little") for value in rate)
    clip.write_bytes(data)
    begin = time.perf_counter()
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert time.perf_counter() - begin < 60 and 1 <= open_media(clip).info.fps <= 1000
    assert summary.frames < 200 and summary.seconds < 1000


def test_the_last_picture_is_held_to_the_end_of_the_sound(tmp_path: Path, localizer: Localizer) -> None:
    times = [n / 20 for n in range(20)]
    clip = write_clip(tmp_path / "c.mp4", [SCENE.frame()] * 20, times, SCENE.sound(2.5, 44100), fps=20)
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert summary.warnings == () and summary.seconds == pytest.approx(2.5, abs=0.06)
    frames, shown, seconds = read_video(tmp_path / "o.mp4")
    assert shown[:20] == pytest.approx(times, abs=1e-3)
    # newer FFmpegs take off what AAC's last block holds beyond the sound: the picture at 2.5 s is of that
    assert shown[20:] == pytest.approx(np.arange(10, 10 + len(shown[20:])) / 10, abs=0.06)
    assert len(shown[20:]) in (15, 16)
    assert seconds == pytest.approx(2.5, abs=0.06)
    assert np.abs(frames[-1].astype(int) - frames[19]).mean() < 12
    assert "red" in summary.table[2].on_screen


@needs_ffmpeg
def test_one_still_picture_with_a_sound(tmp_path: Path, localizer: Localizer) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=160x120", "-frames:v", "1", tmp_path / "p.png")
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=48000:d=3", tmp_path / "s.wav")
    ffmpeg("-i", tmp_path / "p.png", "-i", tmp_path / "s.wav", *AAC, "-pix_fmt", "yuv420p", tmp_path / "c.mp4")
    for video, audio in ((tmp_path / "c.mp4", None), (tmp_path / "p.png", tmp_path / "s.wav")):
        summary = localize_file(localizer, video, audio=audio)
        assert summary.seconds == pytest.approx(3.0, abs=0.1) and 25 <= summary.frames <= 32
        assert summary.warnings == ()


def test_sound_that_is_a_little_longer_holds_nothing(tmp_path: Path) -> None:
    times = [n / 30 for n in range(30)]
    clip = write_clip(tmp_path / "c.mp4", [SCENE.frame()] * 30, times, SCENE.sound(1.2, 44100))
    media = open_media(clip)
    events = list(media.events(0.7))
    blocks = [event for event in events if isinstance(event, AudioBlock)]
    assert sum(hasattr(event, "rgb") for event in events) == 30 and media.held_until == 0
    assert sum(len(block.samples) for block in blocks) / 44100 == pytest.approx(1.2, abs=0.05)


@needs_ffmpeg
def test_the_commands_sums_for_a_camera_recording(tmp_path: Path) -> None:
    """The command itself, on wall-clock timestamps with PCM sound."""
    import sys

    clip = make_clip(tmp_path / "c.mkv", *PCM, "-output_ts_offset", "1700000000")
    command = [sys.executable, "-m", "avgn", "localize", "tiny", str(clip), "--output", str(tmp_path / "o.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "20 frames, 2.00 s of video in" in done.stdout and "real-time factor 0.000" not in done.stdout
