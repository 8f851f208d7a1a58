"""Every example runs, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avgn.runtime import Bundle
from avgn.scenes import SceneConfig, synthesize

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def start(name: str, *arguments: object, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", str(EXAMPLES / name), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(name: str, *arguments: object, **more: str) -> str:
    with start(name, *arguments, **more) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a test picture and a tone."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    drawn = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=1"]
    heard = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1"]
    subprocess.run(["ffmpeg", "-v", "error", *drawn, *heard, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path


def test_localize_file(clip: Path) -> None:
    assert all("s  " in line for line in run("localize_file.py", clip).splitlines())


def test_camera_callback(clip: Path) -> None:
    # OpenCV opens a file where a camera is asked for; it begins again and again until it is interrupted
    with start("camera_callback.py", clip, "--silent") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert all("160 x 120: " in line for line in lines), lines
    assert process.returncode == 0 and "frames" in err, err


def test_serve_and_subscribe(clip: Path) -> None:
    lines = run("serve_and_subscribe.py", clip).splitlines()
    assert lines[0].startswith("classes: ") and len(lines) == 6
    assert lines[-1].startswith("0.80 s:")


def test_train_your_folder(clip: Path, tmp_path: Path) -> None:
    for label in ("dog", "violin"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "clips" / label / f"{number}.mp4").write_bytes(clip.read_bytes())
    out = run("train_your_folder.py", tmp_path / "clips", tmp_path / "out", STEPS="2")
    assert "clips of dog, violin" in out
    assert Bundle.load(tmp_path / "out" / "bundle").info.classes == ("dog", "violin")


def test_add_a_system(tmp_path: Path) -> None:
    scenes = synthesize(tmp_path / "scenes", scenes=4, config=SceneConfig(split="train"), seed=1)
    run("add_a_system.py", scenes, tmp_path / "run")
    assert '"nearest-cell"' in (tmp_path / "run" / "config.json").read_text()


def test_examples_are_short() -> None:
    assert all(len(file.read_text().splitlines()) <= 40 for file in EXAMPLES.glob("*.py"))
