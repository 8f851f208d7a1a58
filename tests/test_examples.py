"""Every example runs, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_localize_file(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    drawn = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=1"]
    heard = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1"]
    subprocess.run(["ffmpeg", "-v", "error", *drawn, *heard, "-pix_fmt", "yuv420p", str(video)], check=True)
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "localize_file.py", str(video)], cwd=ROOT, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_examples_are_short() -> None:
    assert all(len(file.read_text().splitlines()) <= 40 for file in (ROOT / "examples").glob("*.py"))
