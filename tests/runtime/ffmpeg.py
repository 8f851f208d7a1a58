"""FFmpeg's own programs, as makers of files and as a second opinion about them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="ffmpeg and ffprobe are not installed"
)


def ffmpeg(*arguments: object) -> bytes:
    """Run ffmpeg; returns its standard output."""
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120).stdout


def make_clip(path: Path, *options: str, seconds: float = 2.0, sound: str = "sine=440:r=48000", fps: int = 10) -> Path:
    """A clip of a test card with a sound; `options` go to the output."""
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc=s=160x120:r={fps}:d={seconds}"),
        *("-f", "lavfi", "-i", f"{sound}:d={seconds}"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *options, path),
    )
    return path


def frame_times(path: Path, kind: str) -> list[float]:
    """The timestamps of the decoded frames of the first track of a kind ("v" or "a"), by ffprobe; NaN for none."""
    entry = "best_effort_timestamp_time"
    command = ["ffprobe", "-v", "error", "-select_streams", f"{kind}:0", "-show_entries", f"frame={entry}"]
    out = subprocess.run([*command, "-of", "json", str(path)], check=True, stdout=subprocess.PIPE, timeout=120).stdout
    frames: list[dict[str, Any]] = json.loads(out)["frames"]
    return [float(frame.get(entry, "nan")) for frame in frames]


def first_picture(path: Path, width: int, height: int, *options: str) -> npt.NDArray[np.uint8]:
    """The first picture [H, W, 3] as ffmpeg shows it, upright."""
    data = ffmpeg("-i", path, "-frames:v", "1", *options, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
