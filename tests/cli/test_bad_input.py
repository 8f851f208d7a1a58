"""Bad input through the command: one sentence, exit status 2, nothing half-written; or localized on, and said so."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import avgn as package
from avgn.scenes import SceneConfig, synthesize
from avgn.scenes.video import write_scene_video
from tests.commands import ENVIRONMENT, forked, refused

RATE = 44_100
SMALL = (
    "--preset",
    "avgn-tiny",
    "--visual-weights",
    "random",
    "--batch-size",
    2,
    "--threads",
    1,
    "--checkpoint-steps",
    1,
)
SIZES = ("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "scene.mp4"
    write_scene_video(path, seed=3, seconds=2.0, config=SceneConfig(split="test", sources=(1, 1), silent=(0, 0)))
    return path


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("stills") / "set", scenes=6, config=SceneConfig(split="val"), seed=1)


def remux(source: Path, target: Path, keep: str) -> Path:
    """A copy with only the streams of one kind."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = next(stream for stream in old.streams if stream.type == keep)
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return target


def with_sound(source: Path, target: Path, sound: np.ndarray[Any, np.dtype[np.float32]]) -> Path:
    """The pictures of a video with float samples [T] as its sound, uncompressed."""
    with av.open(str(source)) as old, av.open(str(target), "w", format="matroska") as new:
        video = old.streams.video[0]
        copy = new.add_stream_from_template(video)
        audio = new.add_stream("pcm_f32le", rate=RATE, layout="mono")
        for packet in old.demux(video):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        new.mux(audio.encode(frame))
        new.mux(audio.encode(None))
    return target


def test_half_a_video(tmp_path: Path, video: Path) -> None:
    silent = remux(video, tmp_path / "silent.mp4", "video")
    message = refused("localize", "tiny", silent, "--output", tmp_path / "o.mp4")
    assert "has no sound" in message and "--audio" in message
    sound = remux(video, tmp_path / "sound.mp4", "audio")
    assert "has no video" in refused("localize", "tiny", sound, "--output", tmp_path / "o.mp4")
    message = refused("localize", "tiny", silent, "--audio", silent, "--output", tmp_path / "o.mp4")
    assert message == f"avgn: {silent} has no sound: give another file to --audio"
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt ")
    path = tmp_path / "broken.wav"
    for name in (path, path.as_uri()):
        message = refused("localize", "tiny", silent, "--audio", name, "--output", tmp_path / "o.mp4")
        assert message.startswith(f"avgn: {path} can't be opened as sound (")
    message = refused("localize", "tiny", silent, "--audio", "http://127.0.0.1/a.wav", "--output", tmp_path / "o.mp4")
    assert message == "avgn: --audio takes a file, not the address http://127.0.0.1/a.wav: fetch it first"
    assert not (tmp_path / "o.mp4").exists()
    done = forked("localize", "tiny", silent, "--audio", sound, "--json", tmp_path / "r.jsonl")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 50


@pytest.mark.parametrize("name", ["nan", "clipped"])
def test_sound_that_is_no_sound_is_localized_on(tmp_path: Path, video: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(2 * RATE)).astype(np.float32)
    if name == "nan":
        sound[5_000:9_000] = np.nan
        sound[20_000] = np.inf
    else:
        sound *= 100
    path = with_sound(video, tmp_path / "in.mkv", sound)
    done = forked("localize", "tiny", path, "--output", tmp_path / "o.mp4", "--json", tmp_path / "r.jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(lines) == 50
    assert all(np.isfinite(source["audio_prob"]) for line in lines for source in line["sources"])
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 50


def test_a_corrupt_frame_is_reported_and_localized_on(tmp_path: Path, video: Path) -> None:
    data = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pos is not None and packet.size]
    middle = packets[len(packets) // 2]
    assert middle.pos is not None
    data[middle.pos + 8 : middle.pos + middle.size] = b"\xff" * (middle.size - 8)
    path = tmp_path / "corrupt.mp4"
    path.write_bytes(data)
    done = forked("localize", "tiny", path, "--json", tmp_path / "r.jsonl")
    assert done.returncode == 0, done.stderr
    assert "corrupt" in done.stdout + done.stderr
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) >= 40


def test_bundles_that_can_not_be_trusted(tmp_path: Path, video: Path) -> None:
    shipped = Path(package.__file__).parent / "models" / "tiny"

    def broken(name: str) -> Path:
        return Path(shutil.copytree(shipped, tmp_path / name))

    wrong = broken("hash")
    with (wrong / "image.onnx").open("ab") as file:
        file.write(b"\0")
    missing = broken("missing")
    (missing / "audio.onnx").unlink()
    future, outside = broken("future"), broken("outside")
    for folder, change in ((future, {"version": 99}), (outside, {})):
        facts = json.loads((folder / "bundle.json").read_text()) | change
        if not change:
            facts["variants"][0]["audio"] = "../tiny/audio.onnx"
        (folder / "bundle.json").write_text(json.dumps(facts))
    for folder, words in (
        (wrong, "sha256"),
        (missing, "audio.onnx"),
        (future, "version 99"),
        (outside, "../tiny/audio.onnx"),
        (tmp_path / "none", "does not exist"),
    ):
        assert words in refused("localize", folder, video, "--output", tmp_path / "o.mp4")
    assert not (tmp_path / "o.mp4").exists()


def test_two_outputs_need_two_paths(tmp_path: Path, video: Path) -> None:
    target = tmp_path / "same.x"
    assert "choose a path for each" in refused("localize", "tiny", video, "--output", target, "--json", target)
    assert not list(tmp_path.iterdir())


def test_unwritable_outputs(tmp_path: Path, video: Path, stills: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "can't be written" in refused("localize", "tiny", video, "--output", file / "o.mp4")
    assert "can't be written" in refused("evaluate", "tiny", stills, "--bootstrap", 0, "--json", file / "x.json")
    assert "is a file" in refused("train", stills, "--output", file, "--steps", 1, *SMALL, *SIZES)
    assert "at least 1" in refused("train", stills, "--output", tmp_path / "o", "--threads", 0)
    too_short = refused("train", stills, "--output", tmp_path / "o", "--model.window-seconds=0.01", *SMALL)
    assert "choose a longer window" in too_short
    assert "is not usable" in refused("demo", "--bundle", "tiny", "--seconds", 0.1, "--output", tmp_path / "demo")
    assert "does not exist" in refused("demo", "--bundle", "none", "--output", tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and file.read_text() == "mine"


def limited(size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that can't write files of more than `size` bytes, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        [sys.executable, "-m", "avgn", *map(str, arguments)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=300, preexec_fn=limit,
    )  # fmt: skip


def test_a_full_disk(tmp_path: Path, video: Path, stills: Path) -> None:
    for name, size, arguments in (
        ("overlay", 20_000, ("localize", "tiny", video, "--output", tmp_path / "o.mp4")),
        ("scenes", 20_000, ("synthesize", tmp_path / "set", "--scenes", 2, "--jobs", 1)),
        ("scores", 50, ("evaluate", "tiny", stills, "--bootstrap", 0, "--json", tmp_path / "scores.json")),
    ):
        done = limited(size, *arguments)
        assert done.returncode == 2, (name, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1 and "can't be written" in done.stderr, name
        assert not list(tmp_path.iterdir()), name


def test_resuming_with_other_classes_or_a_damaged_checkpoint(tmp_path: Path, stills: Path) -> None:
    output = tmp_path / "run"
    done = forked("train", stills, "--output", output, "--steps", 1, *SMALL, *SIZES)
    assert done.returncode == 0, done.stderr
    lines = stills.read_text().splitlines()
    header = json.loads(lines[0])
    other = stills.parent / "other.jsonl"
    other.write_text("\n".join([json.dumps(header | {"classes": header["classes"][::-1]}), *lines[1:]]) + "\n")
    again = ("--output", output, "--steps", 2, "--resume", *SMALL)
    before = (output / "model.safetensors").read_bytes()
    assert "in the same order" in refused("train", other, *again, *SIZES)
    assert "another depth" in refused("train", stills, *again, *SIZES[:-1], "--model.depth=2")
    last = output / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:2000])
    assert "can't be resumed from" in refused("train", stills, *again, *SIZES)
    assert (output / "model.safetensors").read_bytes() == before


def test_export_overwrites_bundles_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thing").write_text("precious")
    assert "is no bundle" in refused("export", tmp_path / "checkpoint", mine, "--overwrite")
    assert (mine / "thing").read_text() == "precious"


def test_shipped_graphs_name_no_machine() -> None:
    for file in (Path(package.__file__).parent / "models" / "tiny").glob("*.onnx"):
        content = file.read_bytes()
        assert b"site-packages" not in content and b'File "' not in content


def test_ctrl_c_in_training_says_so_and_can_be_resumed(tmp_path: Path, stills: Path) -> None:
    output = tmp_path / "run"
    arguments = ("train", stills, "--output", output, *SMALL, *SIZES)
    command = [sys.executable, "-m", "avgn", *map(str, arguments), "--steps", "5000"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    last = output / "checkpoints" / "last.ckpt"
    for _ in range(2400):
        if last.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "avgn: interrupted"
    done = forked(*arguments, "--steps", 1, "--resume")
    assert done.returncode == 0, done.stderr
