"""From a file to an overlay and JSON lines, with all that can go wrong on the way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avgn.runtime import InputError, Localizer, localize_file, open_media
from avgn.runtime.live_run import localize_live
from avgn.runtime.multi import MultiStream
from avgn.runtime.web.server import serve
from avgn.runtime.workers import Worker, prefetch
from tests.runtime.clips import Scene, read_video, still_clip, write_clip

ROOT = Path(__file__).parents[2]
SCENE = Scene(seen={0: (0.25, 0.3), 1: (0.7, 0.6)}, heard=(0, 2))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return still_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", SCENE, seconds=2.0, channels=2)


def test_overlay_and_json_lines(localizer: Localizer, clip: Path, tmp_path: Path) -> None:
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4", json_path=tmp_path / "o.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.jsonl", "o.mp4"]
    assert summary.frames == 60 and summary.seconds == pytest.approx(2.0, abs=0.01) and summary.warnings == ()
    assert set(summary.ms) == {"decode", "resize", "audio", "image", "decide", "draw", "encode"}
    assert [row.on_screen for row in summary.table] == [{"red": 30}, {"red": 30}]
    # what is never seen must be certain for 0.6 s before it is said: 12 of the first 30 frames
    assert [row.off_screen for row in summary.table] == [{"blue": 12}, {"blue": 30}]
    assert "red 100%, off-screen blue 40%" in summary.lines()[1]
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(60))
    before, times, _ = read_video(clip)
    after, shown, seconds = read_video(tmp_path / "o.mp4")
    assert shown == pytest.approx(times, abs=1e-4) and seconds == pytest.approx(2.0, abs=0.05)
    change = np.abs(after[30].astype(int) - before[30]).mean(axis=2)
    # box and label around the red square, the off-screen note at the top right, nothing elsewhere
    assert change[20:90, 20:100].mean() > 4 and change[2:14, 150:236].mean() > 30 and change[120:, :].mean() < 6


def audio_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def test_fitting_sound_is_copied_bit_by_bit(localizer: Localizer, clip: Path, tmp_path: Path) -> None:
    localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert audio_packets(tmp_path / "o.mp4") == audio_packets(clip)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("pcm.avi", {"video_codec": "mjpeg", "audio_codec": "pcm_s16le", "rate": 8000, "ticks": 0}),
        ("flac.mkv", {"audio_codec": "flac", "rate": 96000, "channels": 6}),
        (
            "opus.mkv",
            {"video_codec": "mjpeg", "audio_codec": "libopus", "rate": 48000, "sound_start": 0.5, "size": (141, 203)},
        ),
        ("broadcast.ts", {"rate": 48000}),
    ],
)
def test_sound_of_other_formats(localizer: Localizer, tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    scene = Scene(seen={0: (0.5, 0.5)}, heard=(0,))
    clip = still_clip(tmp_path / name, scene, seconds=1.5, **how)
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    # sound that starts later ends later: the last picture is held
    assert summary.frames == (51 if "sound_start" in how else 45)
    again = list(localizer.stream(tmp_path / "o.mp4"))
    assert len(again) == summary.frames and all(r.sources and r.sources[0].label == "red" for r in again[20:40])
    start = next(open_media(tmp_path / "o.mp4").audio()).time
    assert start == pytest.approx(how.get("sound_start", 0.0), abs=0.06)


def test_variable_frame_rate_goes_through(localizer: Localizer, tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.3, 0.31, 0.5, 0.95, 1.2, 1.9]
    clip = write_clip(tmp_path / "v.mkv", [SCENE.frame()] * 8, times, SCENE.sound(2.0, 44100), ticks=1000)
    localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert read_video(tmp_path / "o.mp4")[1] == pytest.approx(times, abs=0.0012)


def test_threads_change_no_result(localizer: Localizer, clip: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    localize_file(localizer, clip, sinks=[lambda result, rgb: seen.append((result, rgb))])
    plain = list(localizer.stream_with_frames(clip, batch=1))
    assert len(seen) == len(plain)
    for (a, rgb_a), (b, rgb_b) in zip(seen, plain, strict=True):
        assert np.abs(a.maps - b.maps).max() <= 1e-5 and a.time == b.time and np.array_equal(rgb_a, rgb_b)


def test_corrupt_frames_and_early_end_are_in_the_summary(localizer: Localizer, tmp_path: Path) -> None:
    clip = still_clip(tmp_path / "c.mkv", SCENE, seconds=3.0, video_codec="mjpeg", audio_codec="flac")
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    at, size = packets[20]
    data = bytearray(clip.read_bytes())
    data[at + 16 : at + size - 16] = bytes(size - 32)
    clip.write_bytes(data[: len(data) // 2])
    summary = localize_file(localizer, clip, output=tmp_path / "o.mp4")
    assert summary.corrupt_frames >= 1 and "corrupt pieces of video were skipped" in summary.warnings[0]
    assert any("it should last 3.0 s" in warning for warning in summary.warnings)
    assert len(read_video(tmp_path / "o.mp4")[0]) == summary.frames > 20


def test_nothing_is_left_behind_by_bad_inputs(localizer: Localizer, clip: Path, tmp_path: Path) -> None:
    outputs: dict[str, Any] = {"output": tmp_path / "o.mp4", "json_path": tmp_path / "o.jsonl"}
    silent = write_clip(tmp_path / "silent.mp4", [SCENE.frame()] * 5, [n / 30 for n in range(5)], None)
    with pytest.raises(InputError, match="has no sound: give the sound with --audio FILE"):
        localize_file(localizer, silent, **outputs)
    with pytest.raises(InputError, match="can't be written: its folder does not exist"):
        localize_file(localizer, clip, output=tmp_path / "no" / "o.mp4", json_path=tmp_path / "o.jsonl")
    with pytest.raises(InputError, match="is a folder: give the name of a file"):
        localize_file(localizer, clip, json_path=tmp_path)
    with pytest.raises(InputError, match="is also an input: choose another name"):
        localize_file(localizer, silent, audio=clip, output=silent)
    assert [p.name for p in tmp_path.iterdir()] == ["silent.mp4"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("tiny", "got str: give Localizer.load('tiny')"),
        (Path("models/a"), "Path: give Localizer.load('models/a')"),
        (None, "got NoneType: give Localizer.load(bundle)"),
    ],
    ids=["name", "path", "none"],
)
def test_what_is_no_localizer_is_refused_with_the_way_to_load_one(clip: Path, given: Any, sentence: str) -> None:
    for enter in (lambda: localize_file(given, clip), lambda: localize_live(given, str(clip)), lambda: serve(given)):
        with pytest.raises(TypeError, match=re.escape(sentence)):
            enter()


def test_a_localizer_is_no_engine(localizer: Any) -> None:
    with pytest.raises(TypeError, match=r"engine must run .* got Localizer: give its .engine"):
        MultiStream(localizer)


def test_a_failing_sink_stops_the_run_and_leaves_nothing(localizer: Localizer, clip: Path, tmp_path: Path) -> None:
    def fail(result: Any, rgb: Any) -> None:
        if result.frame == 20:
            raise RuntimeError("sink broke")

    with pytest.raises(RuntimeError, match="sink broke"):
        localize_file(localizer, clip, output=tmp_path / "o.mp4", json_path=tmp_path / "o.jsonl", sinks=[fail])
    assert list(tmp_path.iterdir()) == []


RUN = """
import resource, sys
from avgn.runtime import InputError, Localizer, localize_file
limit = int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
arguments = {sys.argv[3].split('.')[-1]: sys.argv[5]}
def note(result, rgb):
    if result.frame == 30:
        print("running", flush=True)
try:
    localizer = Localizer.load(sys.argv[1])
    outputs = {{"mp4": "output", "jsonl": "json_path"}[k]: v for k, v in arguments.items()}
    localize_file(localizer, sys.argv[2], sinks=[note], **outputs)
except InputError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(bundle: Path, clip: Path, output: Path, limit: int = 0) -> subprocess.Popen[str]:
    arguments = [str(bundle), str(clip), output.name, str(limit), str(output)]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("name", "limit"), [("o.mp4", 1000), ("o.mp4", 20000), ("o.jsonl", 100), ("o.jsonl", 9000)])
def test_full_disk(bundle_path: Path, clip: Path, tmp_path: Path, name: str, limit: int) -> None:
    process = start(bundle_path, clip, tmp_path / name, limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.count("\n") == 1 and f"output {tmp_path / name} can't be written (" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["o.mp4", "o.jsonl"])
def test_ctrl_c_leaves_a_playable_overlay(bundle_path: Path, tmp_path: Path, name: str) -> None:
    scene = Scene(seen={0: (0.25, 0.3)}, heard=(0,))
    long = still_clip(tmp_path / "long.mp4", scene, seconds=40.0, size=(360, 640))
    process = start(bundle_path, long, tmp_path / name)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["long.mp4", name])
    if name == "o.jsonl":
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [line["frame"] for line in lines] == list(range(len(lines))) and 30 < len(lines) < 1200
        return
    frames, times, seconds = read_video(tmp_path / name)
    assert 30 < len(frames) < 1200 and seconds == pytest.approx(times[-1], abs=0.2)


def test_prefetch_passes_errors_and_stops() -> None:
    def broken() -> Any:
        yield 1
        raise InputError("broke")

    items = prefetch(broken(), 4)
    assert next(items) == 1
    with pytest.raises(InputError, match="broke"):
        next(items)
    closed: list[bool] = []

    def endless() -> Any:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    items = prefetch(endless(), 2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_worker_raises_what_broke() -> None:
    def work(item: int) -> None:
        raise ValueError(f"item {item}")

    worker = Worker(work, 1)
    worker.put(1)
    with pytest.raises(ValueError, match="item 1"):
        for _ in range(60_000):
            worker.put(2)
            time.sleep(0.001)
    with pytest.raises(ValueError, match="item 1"):
        worker.finish()
