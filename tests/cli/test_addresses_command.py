"""avgn localize with addresses of finished things, of streams without sound, of nothing; and with bare device names."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import open_media
from avgn.scenes import SceneConfig, synthesize
from tests.commands import ENVIRONMENT, forked, refused
from tests.patience import tried_again
from tests.runtime import pulse
from tests.runtime.servers import ffmpeg, free_port, serve, stamped, wait_for


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SceneConfig(split="test", sources=(1, 2), off_screen=0.0, size=(320, 240))
    folder = tmp_path_factory.mktemp("finished")
    synthesize(folder, scenes=1, config=config, seed=5, video_seconds=3.0, jobs=1)
    return next(folder.rglob("*.mp4"))


def lines_of(path: Path) -> list[dict[str, object]]:
    """Result lines without the times that the machine took."""
    return [{**json.loads(line), "ms": None} for line in path.read_text().splitlines()]


def test_finished_things_give_what_their_file_gives(video: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out"
    options = ("--backend", "onnxruntime", "--threads", 1)
    assert forked("localize", "tiny", f"file://{video}", "--json", out / "file.jsonl", *options).returncode == 0
    ffmpeg("-i", video, "-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_playlist_type", "vod", tmp_path / "v.m3u8")
    (tmp_path / "v.mp4").write_bytes(video.read_bytes())
    with serve(tmp_path, ranges=False) as (base, _):
        done = forked(
            *("localize", "tiny", f"{base}/v.mp4?key=secret", "--json", out / "http.jsonl", *options),
            *("--output", out / "o.mp4", "--csv", out / "e.csv"),
        )
        playlist = forked("localize", "tiny", f"{base}/v.m3u8", "--json", out / "hls.jsonl", *options)
        asked = refused("localize", "tiny", f"{base}/v.mp4", "--seconds", "5")
    assert done.returncode == 0 and "is finished" in done.stderr and "secret" not in done.stderr, done.stderr
    assert "reconnect" not in done.stderr and "lost" not in done.stderr and "frames/s" in done.stdout
    assert "is a finished one" in asked and "--live" in asked
    truth = lines_of(out / "file.jsonl")
    assert lines_of(out / "http.jsonl") == truth and len(truth) == len(list(open_media(video).video()))
    assert len(list(open_media(out / "o.mp4").video())) == len(truth)
    assert playlist.returncode == 0, playlist.stderr
    hls = lines_of(out / "hls.jsonl")
    assert len(hls) == len(truth)
    times = [np.array([float(str(line["time"])) for line in found]) for found in (hls, truth)]
    np.testing.assert_allclose(times[0] - times[0][0], times[1] - times[1][0], atol=0.002)


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("tone.wav", 2, "{address} has no video: give a video file"),
        ("mute.webm", 2, "{address} has no sound: give the sound with --audio FILE"),
        ("page.html", 2, "{address} can't be opened as video"),
        ("cut.mp4", 2, "{address} "),
        ("silent.mp4", 0, "the sound of {address} is silent"),
    ],
)
def test_what_is_said_about_a_fetched_file_names_its_address(
    video: Path, tmp_path: Path, name: str, status: int, said: str
) -> None:
    ffmpeg("-i", video, "-vn", tmp_path / "tone.wav")
    ffmpeg("-i", video, "-an", "-t", 1, "-deadline", "realtime", tmp_path / "mute.webm")
    ffmpeg("-i", video, "-c:v", "copy", "-af", "volume=0", tmp_path / "silent.mp4")
    (tmp_path / "page.html").write_text("<html>" + "no video " * 1000)
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:2000])
    with serve(tmp_path) as (base, _):
        done = forked("localize", "tiny", f"{base}/{name}")
    assert done.returncode == status and said.format(address=f"{base}/{name}") in done.stderr, done.stderr
    assert "/avgn-" not in done.stderr


@tried_again
def test_live_and_no_live_overrule(video: Path, tmp_path: Path) -> None:
    with serve(video.parent) as (base, _):
        live = forked(
            *("localize", "tiny", f"{base}/{video.name}", "--live", "--seconds", 4, "--threads", 1),
            *("--json", tmp_path / "r.jsonl"),
        )
    assert live.returncode == 0 and ": live" in live.stderr and "capture to result" in live.stderr, live.stderr
    port = free_port()
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(video),
        "-c",
        "copy",
        "-f",
        "mpegts",
        f"tcp://127.0.0.1:{port}?listen=1",
    ]
    sender = subprocess.Popen(command)
    try:
        wait_for(port)
        whole = forked("localize", "tiny", f"tcp://127.0.0.1:{port}", "--no-live", "--json", tmp_path / "w.jsonl")
    finally:
        sender.kill()
        sender.wait()
    assert whole.returncode == 0, whole.stderr
    assert len(lines_of(tmp_path / "w.jsonl")) == len(list(open_media(video).video()))
    assert "for an address" in refused("localize", "tiny", video, "--live")
    assert "exclude each other" in refused("localize", "tiny", f"tcp://127.0.0.1:{port}", "--live", "--no-live")


def test_seconds_that_end_while_connecting_are_a_failure(tmp_path: Path) -> None:
    for url in (f"udp://127.0.0.1:{free_port()}", f"rtsp://127.0.0.1:{free_port()}/x", "http://127.0.0.1:9/"):
        done = forked(
            "localize", "tiny", url, "--seconds", 1.5, "--json", tmp_path / "r.jsonl", "--output", tmp_path / "o.mp4"
        )
        assert done.returncode == 1, done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("avgn: ") and f"{url} gave nothing in 1.5 s" in last and "--seconds" in last
    assert list(tmp_path.iterdir()) == []


def test_a_camera_that_gives_nothing_is_a_failure(tmp_path: Path) -> None:
    for name, said in (("77", "camera:77"), ("/dev/video77", "camera:/dev/video77")):
        done = forked("localize", "tiny", name, "--microphone", "none", "--seconds", 1.5)
        assert done.returncode == 1 and f"{said} gave nothing in 1.5 s" in done.stderr, done.stderr
    assert "another machine" in refused("localize", "tiny", "file://server/a.mp4")
    assert "does not exist" in refused("localize", "tiny", "file:///no/such.mp4")
    assert "--microphone goes with" in refused("localize", "tiny", "a.mp4", "--microphone", "default")


@pytest.mark.parametrize("tone", [False, True], ids=["silent", "with sound"])
@tried_again
def test_a_stream_without_sound_is_told_of_once(tone: bool, tmp_path: Path) -> None:
    port = free_port()
    with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 25, 12, 25, *(["tone"] if tone else [])):
        wait_for(port)
        done = forked("localize", "tiny", f"tcp://127.0.0.1:{port}", "--seconds", 4, "--json", tmp_path / "r.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has no sound") == (0 if tone else 1)
    assert ("--microphone default" in done.stderr) is not tone
    assert lines_of(tmp_path / "r.jsonl")


@pytest.fixture(scope="module")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if reason := pulse.missing():
        pytest.skip(reason)
    with pulse.server(tmp_path_factory.mktemp("pulse")) as environment:
        yield environment


@tried_again
def test_a_microphone_beside_an_address(video: Path, sound_server: dict[str, str], tmp_path: Path) -> None:
    """Pictures from a camera on the network without sound; what the microphone of this machine hears is recorded."""
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(60 * 48_000) / 48_000)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    port = free_port()
    player = subprocess.Popen(["paplay", str(tmp_path / "tone.wav")], env=sound_server)
    try:
        with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 10, 5):
            wait_for(port)
            command = [sys.executable, "-m", "avgn", "localize", "tiny", f"tcp://127.0.0.1:{port}", "--threads", "1"]
            command += ["--microphone", "pulse", "--seconds", "6", "--output", str(tmp_path / "o.mp4")]
            done = subprocess.run(command, env=ENVIRONMENT | sound_server, capture_output=True, text=True, timeout=120)
    finally:
        player.kill()
        player.wait()
    assert done.returncode == 0, done.stderr
    assert "no sound" not in done.stderr and "is silent" not in done.stderr
    sound = np.concatenate([block.samples for block in open_media(tmp_path / "o.mp4").audio()])[:, 0]
    # at the beginning the sender catches up with the time that it waited for us
    second = sound[-72_000:-24_000]
    spectrum = np.abs(np.fft.rfft(second))
    assert len(second) == 48_000 and abs(int(spectrum.argmax()) - 1000) <= 2 and np.abs(second).max() > 0.1
