"""Overlays in every container: playable, with their sound, under any name, and after the process was killed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.runtime import Localizer, localize_file, open_media
from avgn.runtime.arrays import Pixels
from avgn.runtime.decision import Heard
from avgn.runtime.errors import InputError
from avgn.runtime.media import AudioBlock
from avgn.runtime.outputs import open_output
from avgn.runtime.result import Result
from avgn.runtime.sinks import containers
from avgn.runtime.sinks.audio import AudioTrack
from avgn.runtime.sinks.events import EventsWriter
from avgn.runtime.sinks.overlay import LiveOverlay, OverlayWriter
from avgn.runtime.sinks.video_file import VideoFile
from tests.runtime.clips import Scene, read_video, rewrite, still_clip

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SCENE = Scene(seen={0: (0.25, 0.3)}, heard=(0,))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return still_clip(tmp_path_factory.mktemp("clip") / "c.mp4", SCENE, seconds=2.0)


def picture(number: int, size: tuple[int, int] = (120, 160)) -> Pixels:
    """A picture with some detail and a bar whose place says its number."""
    image = np.random.default_rng(number).integers(0, 40, (*size, 3), np.uint8)
    image[:, 4 * number % size[1] : 4 * number % size[1] + 8] = 220
    return image


def write(path: str | Path, media: Path, times: list[float], size: tuple[int, int] = (120, 160)) -> None:
    found = open_media(media)
    file = VideoFile(open_output(path), size, 30.0, lambda output, form: AudioTrack(found, output, form))
    for number, time in enumerate(times):
        file.write(picture(number, size), time)
    file.close()


def probe(path: Path) -> dict[str, Any]:
    """What ffprobe says after it has decoded everything; errors of the decoder are errors."""
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json"]
    done = subprocess.run([*command, f"file:{path}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts | {stream["codec_type"]: stream for stream in facts["streams"]}


def test_sound_that_overlaps_itself(tmp_path: Path) -> None:
    # clocks that were set back a little: some blocks lie wholly in what was heard before
    plain = still_clip(tmp_path / "plain.mkv", SCENE, seconds=2.0, audio_codec="pcm_s16le")
    clip = rewrite(plain, tmp_path / "c.mkv", lambda kind, at, n: min(at, max(1.0, 0.5 + at / 2)))
    write(tmp_path / "o.mp4", clip, [0.0, 0.5, 1.0])
    assert float(probe(tmp_path / "o.mp4")["audio"]["duration"]) == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "form", "video", "audio"),
    [
        (".mp4", "mp4", "h264", "aac"),
        (".m4v", "mp4", "h264", "aac"),
        (".MOV", "mov", "h264", "aac"),
        (".mkv", "matroska", "h264", "aac"),
        (".webm", "webm", "vp9", "opus"),
        (".avi", "avi", "mpeg4", "mp3"),
        (".gif", "gif", "gif", None),
    ],
)
def test_the_suffix_decides(
    localizer: Localizer, clip: Path, tmp_path: Path, suffix: str, form: str, video: str, audio: str | None
) -> None:
    path = tmp_path / f"o{suffix}"
    summary = localize_file(localizer, clip, output=path)
    facts = probe(path)
    assert form in facts["format"]["format_name"] and facts["video"]["codec_name"] == video
    assert int(facts["video"]["nb_read_frames"]) == summary.frames == 60
    assert float(facts["format"]["duration"]) == pytest.approx(2.0, abs=0.1)
    frames, times, seconds = read_video(path)
    assert times == pytest.approx([frame / 30 for frame in range(60)], abs=0.006)
    drawn: list[Pixels] = []
    localize_file(localizer, clip, sinks=[lambda result, rgb: drawn.append(result.plot(rgb))])
    assert np.abs(frames[30].astype(int) - drawn[30]).mean() < 8
    if audio is None:
        assert "audio" not in facts
    else:
        assert facts["audio"]["codec_name"] == audio and seconds == pytest.approx(2.0, abs=0.1)
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffixes_are_refused(clip: Path, localizer: Localizer, tmp_path: Path) -> None:
    for name in ("o.xyz", "o", "o.mp3", "o.mp4.", ".mp4"):
        with pytest.raises(InputError, match=r"says no container\): end it with .mp4, .m4v, .mkv, .webm, .mov"):
            localize_file(localizer, clip, output=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


NAMES = (
    b"2024-01-01T12:00:00.mp4",
    b"-o.mp4",
    b"frame%d.mp4",
    b"%03d.mkv",
    b"a b 'c' \"d\".mp4",
    b"\xff\xfe.mp4",
    "ä音.mov".encode(),
    b"x" * 251 + b".mp4",
    b"pipe:1.mp4",
    b"file:x.mp4",
    b"concat:a|b.mkv",
    b"#?*.mp4",
)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_name_can_be_written(clip: Path, tmp_path: Path, name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # relative, as a user types it
    write(os.fsdecode(name), clip, [0.0, 0.1, 0.2])
    assert os.listdir(b".") == [name]
    with open(name, "rb") as file:
        frames, times, seconds = read_video_bytes(file.read())
    assert len(frames) == 3 and times == pytest.approx([0.0, 0.1, 0.2], abs=1e-3) and seconds > 1.9


def read_video_bytes(data: bytes) -> tuple[list[Pixels], list[float], float]:
    path = io.BytesIO(data)
    import av

    with av.open(path) as container:
        frames = [(frame.to_ndarray(format="rgb24"), float(frame.time)) for frame in container.decode(video=0)]
    path.seek(0)
    with av.open(path) as container:
        seconds = max(float(block.time) + block.samples / block.sample_rate for block in container.decode(audio=0))
    return [rgb for rgb, _ in frames], [time for _, time in frames], seconds


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov", ".avi"])
def test_a_killed_process_leaves_what_can_be_played(clip: Path, tmp_path: Path, suffix: str) -> None:
    code = """
import os, sys
from pathlib import Path
from tests.runtime.test_containers import *
found = open_media(sys.argv[2])
file = VideoFile(open_output(sys.argv[1]), (120, 160), 30.0, lambda output, form: AudioTrack(found, output, form))
for number in range(300):
    file.write(picture(number), number / 30)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", code, str(tmp_path / f"o{suffix}"), str(clip)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    frames = int(probe(left)["video"]["nb_read_frames"])
    # ten seconds were written: at most the last three are gone
    assert 210 <= frames <= 300
    _, times, _ = read_video(left)
    assert times == pytest.approx([number / 30 for number in range(frames)], abs=0.002)


@pytest.mark.parametrize("hybrid", [True, False])
def test_a_finished_mp4_is_like_any_other(
    clip: Path, tmp_path: Path, hybrid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hybrid and not containers.has_hybrid():
        pytest.skip("this FFmpeg has no hybrid files: they stay fragmented")
    monkeypatch.setattr(containers, "has_hybrid", lambda: hybrid)
    path = tmp_path / "o.mp4"
    # a changing rate, two minutes apart in the end
    times = [number / 30 for number in range(60)] + [2.5, 2.51, 4.0, 9.0, 120.0]
    write(path, clip, times)
    facts = probe(path)
    assert int(facts["video"]["nb_read_frames"]) == len(times)
    assert float(facts["format"]["duration"]) == pytest.approx(120.0, abs=0.1)
    assert read_video(path)[1] == pytest.approx(times, abs=1e-4)
    # seeks to where it is told: the bar of the last picture but one
    sought = tmp_path / "s.png"
    command = ["ffmpeg", "-v", "error", "-ss", "9", "-i", str(path), "-frames:v", "1", str(sought)]
    assert subprocess.run(command, timeout=60).returncode == 0
    import cv2

    found = cv2.imread(str(sought))
    assert found is not None
    seen = found.astype(int)
    assert np.abs(seen - picture(63)[..., ::-1]).mean() < 12 < np.abs(seen - picture(10)[..., ::-1]).mean()
    if hybrid:
        assert boxes(path) == ["ftyp", "free", "mdat", "moov"]


def boxes(path: Path) -> list[str]:
    """The outermost boxes of an MP4."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append(data[at + 4 : at + 8].decode())
        length = int.from_bytes(data[at : at + 4], "big")
        at += int.from_bytes(data[at + 8 : at + 16], "big") if length == 1 else length
    return found


@pytest.mark.parametrize("suffix", list(containers.CONTAINERS))
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_recordings_end_well(clip: Path, tmp_path: Path, suffix: str, frames: int) -> None:
    found = open_media(clip)
    for act in ("close", "interrupt", "abort"):
        path = tmp_path / f"{act}{suffix}"
        file = VideoFile(open_output(path), (120, 160), 30.0, lambda output, form: AudioTrack(found, output, form))
        for number in range(frames):
            file.write(picture(number), number / 30)
        if act == "abort":
            file.abort()
        else:
            file.close(interrupted=act == "interrupt")
        if act == "abort" or not frames:
            assert not path.exists()
        else:
            assert int(probe(path)["video"]["nb_read_frames"]) == frames
    assert not list(tmp_path.glob("*.partial"))


def test_an_overlay_goes_through_a_pipe(clip: Path, localizer: Localizer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "o.mkv")
    read, write_end = os.pipe()
    for name, source in ((tmp_path / "o.mkv", tmp_path / "o.mkv"), (f"/dev/fd/{write_end}", read)):
        found: list[bytes] = []

        def take(source: Any = source, found: list[bytes] = found) -> None:
            with open(source, "rb") as file:
                found.append(file.read())

        reader = threading.Thread(target=take)
        reader.start()
        localize_file(localizer, clip, output=name)
        if source == read:
            os.close(write_end)
        reader.join(20)
        frames, times, seconds = read_video_bytes(found[0])
        assert len(frames) == 60 and times[-1] == pytest.approx(59 / 30, abs=0.002) and seconds > 1.9
    localize_file(localizer, clip, output="/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_reader_that_leaves_ends_its_own_output_alone(
    clip: Path, localizer: Localizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "lines")

    def read_one() -> None:
        with open(tmp_path / "lines") as file:
            file.readline()

    reader = threading.Thread(target=read_one)
    reader.start()
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4", json_path=tmp_path / "lines")
    reader.join(20)
    assert summary.frames == 60 and len(read_video(tmp_path / "o.mp4")[0]) == 60
    assert f"the reader of {tmp_path / 'lines'} has gone: the other outputs go on" in caplog.text
    # the last reader ends the run
    reader = threading.Thread(target=read_one)
    reader.start()
    with pytest.raises(BrokenPipeError):
        localize_file(localizer, clip, json_path=tmp_path / "lines")
    reader.join(20)


def test_repeated_times_go_to_the_next_free_tick(clip: Path, tmp_path: Path) -> None:
    write(tmp_path / "o.mp4", clip, [-0.2, 0.0, 0.0, 0.1, 0.1, 0.1, 0.05, 0.2])
    frames, times, _ = read_video(tmp_path / "o.mp4")
    assert len(frames) == 8 and all(b > a for a, b in zip(times, times[1:], strict=False))
    assert times == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.2], abs=1e-3)


def test_a_full_disk_leaves_no_overlay(clip: Path, tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from tests.runtime.test_containers import *
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    write(sys.argv[1], Path(sys.argv[2]), [number / 30 for number in range(150)])
except InputError as error:
    print(error)
"""
    for suffix, limit in ((".mp4", 30), (".mp4", 20_000), (".mkv", 20_000), (".gif", 20_000)):
        command = [sys.executable, "-c", code, str(tmp_path / f"o{suffix}"), str(clip), str(limit)]
        done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert "can't be written (it grew beyond the largest file allowed)" in done.stdout, done.stderr
        assert list(tmp_path.iterdir()) == []


def test_pictures_that_no_encoder_takes(tmp_path: Path, clip: Path) -> None:
    found = open_media(clip)
    with pytest.raises(InputError, match=r"can't be encoded \(pictures of 70000x2: "):
        file = VideoFile(open_output(tmp_path / "o.mp4"), (2, 70000), 30.0, lambda o, f: AudioTrack(found, o, f))
        file.write(np.zeros((2, 70000, 3), np.uint8), 0.0)
        file.close()
    assert list(tmp_path.iterdir()) == []


def onset(path: Path) -> float:
    """When the sound of a file becomes loud, in seconds of ffmpeg's own output."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(path),
        "-af",
        "aresample=async=1:first_pts=0",
        "-ac",
        "1",
        "-ar",
        "8000",
    ]
    raw = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, timeout=60, check=True).stdout
    return float(np.argmax(np.abs(np.frombuffer(raw, np.float32)) > 0.1)) / 8000


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_copied_sound_stays_with_its_pictures(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "c.ts"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2", "-f", "lavfi", "-i"]
    command += ["aevalsrc=if(gte(t\\,1)\\,0.8*sin(2500*t)\\,0):s=48000:d=2", "-c:v", "libx264", "-c:a", "aac"]
    subprocess.run([*command, "-output_ts_offset", "100", str(source)], check=True, timeout=60)
    media = open_media(source)
    overlay = OverlayWriter(tmp_path / f"o{suffix}", media)
    for number, frame in enumerate(media.video()):
        overlay(result(frame.time, number, None), frame.rgb)
    overlay.close()
    facts = probe(tmp_path / f"o{suffix}")
    # AAC that was copied has the packets of its source
    assert facts["audio"]["codec_name"] == "aac" and float(facts["video"]["start_time"]) < 0.1
    assert onset(tmp_path / f"o{suffix}") == pytest.approx(onset(source), abs=0.03) == pytest.approx(1.0, abs=0.06)


def result(time: float, frame: int, peak: tuple[float, float] | None, heard: bool = False) -> Result:
    sources: tuple[Heard, ...] = ()
    if heard:
        sources = (
            Heard(
                label="red",
                index=0,
                audio_prob=0.9,
                visual_prob=0.9,
                on_screen=peak is not None,
                peak=peak,
                box=None if peak is None else (0.0, 0.0, 1.0, 1.0),
                map=None if peak is None else np.zeros((2, 2), np.float32),
            ),
        )
    empty = np.zeros(1, np.float32)
    return Result(
        time=time,
        frame=frame,
        state="source" if heard else "none",
        sources=sources,
        audio_prob=empty,
        visual_prob=empty,
        maps=np.zeros((1, 2, 2), np.float32),
        loudness_db=-20.0,
        window=0,
        ms={},
    )


def test_an_events_place_is_the_mean_of_the_frames_that_show_it(tmp_path: Path) -> None:
    writer = EventsWriter(tmp_path / "e.csv")
    for frame, peak in enumerate([(0.2, 0.4), None, (0.6, 0.8), None]):
        writer(result(frame / 10, frame, peak, heard=True))
    writer.close()
    assert (tmp_path / "e.csv").read_text().splitlines()[1] == "red,0.000,0.300,0.500,0.4000,0.6000,4"


@pytest.mark.parametrize("has_audio", [True, False])
def test_a_live_recording_has_the_sound_that_comes_after_its_first_picture(tmp_path: Path, has_audio: bool) -> None:
    overlay = LiveOverlay(tmp_path / "o.mp4", lambda: has_audio)
    tone = (0.5 * np.sin(2 * np.pi * 400 * np.arange(48_000) / 48_000)).astype(np.float32)
    for number in range(60):
        overlay(result(number / 30, number, None), picture(number))
        if number == 29:
            overlay.hear(AudioBlock(samples=tone[:, None], rate=48_000, time=1.0))
    overlay.close()
    facts = probe(tmp_path / "o.mp4")
    assert ("audio" in facts) == has_audio and facts["video"]["nb_read_frames"] == "60"
    if has_audio:
        assert onset(tmp_path / "o.mp4") == pytest.approx(1.0, abs=0.06)
