"""avgn localize with an address: a second process sends, a third one localizes."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avgn.runtime import Localizer, localize_file
from avgn.scenes import SceneConfig, synthesize
from tests.cli.test_cli import ENVIRONMENT, avgn, refused

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


def test_a_stream_gives_lines_and_events(video: Path, port: int, tmp_path: Path) -> None:
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    sender = subprocess.Popen([sys.executable, str(SENDER), str(video), target, "mpegts"], stderr=subprocess.DEVNULL)
    try:
        done = avgn(
            *("localize", "tiny", f"udp://127.0.0.1:{port}", "--seconds", 6, "--json", tmp_path / "r.jsonl"),
            *("--csv", tmp_path / "e.csv", "--threads", 1),
        )
    finally:
        sender.kill()
    assert done.returncode == 0, done.stderr
    assert ": live" in done.stderr and "capture to result" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(lines) >= 50 and any(line["sources"] for line in lines)
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert rows and {"class", "start", "end", "mean_x"} <= set(rows[0])
    assert all(float(row["end"]) >= float(row["start"]) for row in rows)


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
        _, errors = process.communicate(timeout=20)
    finally:
        sender.kill()
        process.kill()
    assert process.returncode == 0 and time.monotonic() - begin < 5 and "results of" in errors
    assert [line["frame"] for line in first] == list(range(10))
    assert [path.name for path in tmp_path.iterdir()] == ["e.csv"]


def test_bad_requests(port: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{port}/live.m3u8"
    assert "--output is for video files" in refused("localize", "tiny", url, "--output", tmp_path / "o.mp4")
    assert "--seconds must be above 0" in refused("localize", "tiny", url, "--seconds", -1)
    nobody = avgn("localize", "tiny", f"{url}?token=secret", "--json", tmp_path / "r.jsonl")
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
