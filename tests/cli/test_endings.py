"""Commands that are ended from outside finish or remove their files exactly as on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avgn.scenes import SceneConfig, synthesize
from tests.patience import bounded, tried_again
from tests.runtime.clips import Scene, read_video, still_clip
from tests.runtime.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = Scene(seen={0: (0.25, 0.3)}, heard=(0,))
    return still_clip(tmp_path_factory.mktemp("clip") / "long.mp4", scene, seconds=60.0)


def start(*arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-m", "avgn", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not happened():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)


def is_growing(folder: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(path.stat().st_size > 3000 for path in folder.glob(pattern))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_recording_survives(clip: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    process = start("localize", "tiny", clip, "--output", tmp_path / "o.mkv", "--json", tmp_path / "r.jsonl")
    wait_for(process, is_growing(tmp_path, "r.jsonl.*.partial"))
    # timeout and systemd end the whole group, and more than once
    for _ in range(2):
        os.killpg(process.pid, number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status and errors.splitlines()[-1] == "avgn: interrupted"
    assert {path.name for path in tmp_path.iterdir()} == {"o.mkv", "r.jsonl"}
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    frames, times, seconds = read_video(tmp_path / "o.mkv")
    assert 0 < len(frames) == len(lines) < 1800
    assert times[-1] == pytest.approx(lines[-1]["time"], abs=0.002) and seconds == pytest.approx(times[-1], abs=0.2)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("state", ["connecting", "lost"])
def test_an_address_that_gave_nothing_yet_leaves_nothing(
    tmp_path: Path, state: str, number: signal.Signals, status: int
) -> None:
    """A server that says nothing, and a port where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if state == "connecting" else free_port()
        address = f"tcp://127.0.0.1:{port}"
        outputs = ("--json", tmp_path / "r.jsonl", "--csv", tmp_path / "e.csv", "--output", tmp_path / "o.mkv")
        process = start("localize", "tiny", address, *outputs)
        assert process.stderr is not None
        with bounded(process):
            while f"{address}: {state}" not in (line := process.stderr.readline()):
                assert line, "it ended"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status and errors.splitlines()[-1] == "avgn: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_nohup_keeps_a_run_going(clip: Path, tmp_path: Path) -> None:
    process = start("localize", "tiny", clip, "--json", tmp_path / "r.jsonl", prefix=("nohup",))
    wait_for(process, is_growing(tmp_path, "r.jsonl.*.partial"))
    (partial,) = tmp_path.glob("r.jsonl.*.partial")
    process.send_signal(signal.SIGHUP)
    size = partial.stat().st_size
    wait_for(process, lambda: partial.stat().st_size > size + 3000)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and (tmp_path / "r.jsonl").stat().st_size > size


def test_scenes_in_the_making_are_removed(tmp_path: Path) -> None:
    process = start("synthesize", tmp_path / "out", "--scenes", 5000, "--split", "train", "--jobs", 2)
    wait_for(process, lambda: len(list(tmp_path.glob("out.*.partial/frames/*"))) > 5)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and errors.splitlines()[-1] == "avgn: interrupted"
    assert "Traceback" not in errors and list(tmp_path.iterdir()) == []


@tried_again
def test_a_collection_goes_on_after_its_group_was_ended(tmp_path: Path) -> None:
    config = SceneConfig(split="test", sources=(1, 1), silent=(0, 0), size=(64, 64), seconds=1.0)
    manifest = synthesize(tmp_path / "scenes", scenes=96, config=config, seed=1, jobs=1)
    command = ("localize", "tiny", "--manifest", manifest, "--workers", 2, "--json", tmp_path / "o.jsonl")
    process = start(*command)
    journal = tmp_path / "o.jsonl.partial"
    wait_for(process, lambda: journal.exists() and journal.stat().st_size > 0)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "run the same command again to continue" in errors and errors.splitlines()[-1] == "avgn: interrupted"
    done = journal.read_text().count("\n")
    process = start(*command)
    said, errors = process.communicate(timeout=240)
    assert process.returncode == 0 and f"{96 - done} of 96 items localized" in said, errors
    # to a descriptor rows go as they are done
    process = start(*command[:-2], "--json", "-")
    said, errors = process.communicate(timeout=240)
    assert process.returncode == 0 and "96 of 96 items localized" in errors
    rows = [text.splitlines() for text in (said, (tmp_path / "o.jsonl").read_text())]
    assert sorted(json.loads(line)["id"] for line in rows[0]) == sorted(json.loads(line)["id"] for line in rows[1])


def test_closed_standard_streams(clip: Path, tmp_path: Path) -> None:
    # a file of ours must not get the number of standard error, to which libraries write
    output = tmp_path / "o.mp4"
    command = 'exec "$0" -m avgn localize tiny "$1" --duration 0.4 --output "$2" --json "$3" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, clip, output, tmp_path / "r.jsonl"], env=ENVIRONMENT, timeout=120
    )
    assert done.returncode == 0
    assert len(read_video(output)[0]) == len((tmp_path / "r.jsonl").read_text().splitlines()) > 0
