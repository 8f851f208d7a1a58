"""avgn localize with an address: a second process sends, a third one localizes."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import Localizer, localize_file, open_media
from avgn.runtime.sinks.window import has_windows
from avgn.scenes import SceneConfig, synthesize
from tests.commands import ENVIRONMENT, forked, refused
from tests.patience import PATIENCE, tried_again

SENDER = Path(__file__).parents[1] / "runtime" / "sender.py"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SceneConfig(split="test", sources=(1, 2), off_screen=0.0, size=(320, 240))
    folder = tmp_path_factory.mktemp("live")
    synthesize(folder, scenes=1, config=config, seed=5, video_seconds=4.0, jobs=1)
    return next(folder.rglob("*.mp4"))


@pytest.fixture()
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@tried_again
def test_a_stream_gives_lines_and_events(video: Path, port: int, tmp_path: Path) -> None:
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    sender = subprocess.Popen([sys.executable, str(SENDER), str(video), target, "mpegts"], stderr=subprocess.DEVNULL)
    try:
        done = forked(
            *("localize", "tiny", f"udp://127.0.0.1:{port}", "--seconds", 6, "--json", tmp_path / "r.jsonl"),
            *("--csv", tmp_path / "e.csv", "--threads", 1),
        )
    finally:
        sender.kill()
    assert done.returncode == 0, done.stderr
    assert ": live" in done.stderr and "capture to result" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(lines) >= 25 and any(line["sources"] for line in lines)
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert rows and {"class", "start", "end", "mean_x"} <= set(rows[0])
    assert all(float(row["end"]) >= float(row["start"]) for row in rows)


@tried_again
def test_ctrl_c_ends_a_stream_with_its_outputs(video: Path, port: int, tmp_path: Path) -> None:
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    sender = subprocess.Popen([sys.executable, str(SENDER), str(video), target, "mpegts"], stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", "avgn", "localize", "tiny", f"udp://127.0.0.1:{port}", "--json", "-"]
    command += ["--csv", str(tmp_path / "e.csv"), "--threads", "1"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(10)]
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        sender.kill()
        process.kill()
    assert process.returncode == 0 and time.monotonic() - begin < 5 and "results of" in errors
    assert [line["frame"] for line in first] == list(range(10))
    assert [path.name for path in tmp_path.iterdir()] == ["e.csv"]


def test_bad_requests(port: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{port}/live.m3u8"
    assert "--audio is for video files" in refused("localize", "tiny", url, "--audio", tmp_path / "o.wav")
    nowhere = refused("localize", "tiny", url, "--output", tmp_path / "no" / "o.mp4")
    assert "its folder does not exist" in nowhere
    assert "--seconds must be above 0" in refused("localize", "tiny", url, "--seconds", -1)
    nobody = forked(
        "localize", "tiny", f"{url}?token=secret", "--json", tmp_path / "r.jsonl", "--output", tmp_path / "o.mp4"
    )
    assert nobody.returncode == 1 and "gave nothing" in nobody.stderr and "secret" not in nobody.stderr
    assert list(tmp_path.iterdir()) == []


def test_events_of_a_file(video: Path, tmp_path: Path) -> None:
    localize_file(Localizer.load("tiny", threads=1), video, csv_path=tmp_path / "e.csv", json_path=tmp_path / "r.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    heard = [(line["time"], source) for line in lines for source in line["sources"]]
    assert sum(int(row["frames"]) for row in rows) == len(heard) > 0
    for row in rows:
        inside = [
            source["peak"]
            for time, source in heard
            if source["label"] == row["class"] and float(row["start"]) - 1e-3 <= time <= float(row["end"]) + 1e-3
        ]
        assert len(inside) == int(row["frames"])
        shown = [peak for peak in inside if peak is not None]
        if shown:
            assert float(row["mean_x"]) == pytest.approx(sum(peak[0] for peak in shown) / len(shown), abs=1e-3)


@tried_again
def test_a_stream_with_its_overlay_and_trace(video: Path, port: int, tmp_path: Path) -> None:
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    sender = subprocess.Popen([sys.executable, str(SENDER), str(video), target, "mpegts"], stderr=subprocess.DEVNULL)
    try:
        done = forked(
            *("localize", "tiny", f"udp://127.0.0.1:{port}", "--seconds", 6, "--threads", 1),
            *("--output", tmp_path / "o.mp4", "--profile", tmp_path / "t.json", "--json", tmp_path / "r.jsonl"),
        )
    finally:
        sender.kill()
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    media = open_media(tmp_path / "o.mp4")
    frames = list(media.video())
    assert abs(len(frames) - len(lines)) <= 2 and (media.info.width, media.info.height) == (640, 360)
    # pictures keep their times, and the sound is theirs: it is heard as the stream was
    assert abs(frames[0].time - lines[0]["time"]) < 0.05
    assert abs((frames[-1].time - frames[0].time) - (lines[-1]["time"] - lines[0]["time"])) < 0.1
    sound = np.concatenate([block.samples for block in media.audio()])[:, 0]
    assert media.info.audio_rate == 48000 and abs(len(sound) / 48000 - frames[-1].time) < 0.5
    assert np.sqrt(np.mean(sound[48000:] ** 2)) > 0.01
    # every stage is on the time line, on threads with names
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    stages = {event["name"] for event in events if event["ph"] == "X"}
    assert {"decode", "convert", "resize", "audio", "image", "decide", "draw", "encode"} <= stages
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {"avgn-capture", "avgn-audio", "avgn-image", "avgn-decide", "avgn-sinks"} <= names
    assert sum(event["name"] == "image" for event in events) >= 0.5 * len(lines)
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events if event["ph"] == "X")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.mp4", "r.jsonl", "t.json"]


def test_a_file_with_its_trace(video: Path, tmp_path: Path) -> None:
    done = forked("localize", "tiny", video, "--profile", tmp_path / "t.json", "--output", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {"decode", "resize", "audio", "image", "decide", "draw", "encode"} <= {event["name"] for event in events}
    broken = forked("localize", "tiny", tmp_path / "no.mp4", "--profile", tmp_path / "u.json")
    assert broken.returncode == 2 and not list(tmp_path.glob("u.json*"))


def test_a_window_needs_a_desktop(video: Path, port: int) -> None:
    cv2 = pytest.importorskip("cv2")
    if has_windows(cv2):
        pytest.skip("this OpenCV has windows: the sentence about one without them can't come")
    said = refused("localize", "tiny", f"udp://127.0.0.1:{port}", "--show")
    assert "pip uninstall opencv-python-headless, then pip install opencv-python" in said
    assert "--show is for live sources" in refused("localize", "tiny", video, "--show")


@tried_again
def test_serve_refuses_before_it_listens_and_ends_with_an_interrupt() -> None:
    assert "needs --token" in refused("serve", "tiny", "--host", "0.0.0.0")
    assert "does not exist" in refused("serve", "no-such-bundle", "--port", "0")
    assert "--max-sessions must be at least 1" in refused("serve", "tiny", "--max-sessions", "0")
    command = [sys.executable, "-m", "avgn", "serve", "tiny", "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(address + "healthz", timeout=PATIENCE) as answer:
                assert json.loads(answer.read())["status"] == "ok"
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and errors.strip() == "avgn: interrupted"
    assert time.monotonic() - begin < 5
