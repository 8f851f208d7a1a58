"""The pictures of a video alone are those of the whole file, with its times."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.media import open_media
from avgn.runtime.pictures import Pictures
from avgn.scenes.encode import encode_video
from avgn.scenes.synth import RATE


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = (np.full((48, 64, 3), 5 * n, np.uint8) for n in range(30))
    encode_video(path, frames, np.zeros(2 * RATE, np.float32), (64, 48))
    return path


@pytest.mark.parametrize("options", [["-an"], ["-an", "-bf", "2"], ["-c:a", "copy"]], ids=str)
def test_they_are_those_of_the_file(clip: Path, tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "other.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-i", clip, *options, path], check=True)
    pictures = Pictures(path)
    found = list(pictures)
    assert len(found) == 30 and found[0].time == 0.0
    assert np.allclose(np.diff([frame.time for frame in found]), 1 / 25, atol=2e-3)
    # again, and the same
    assert np.array_equal(next(iter(pictures)).rgb, found[0].rgb)
    if "-an" not in options:
        for ours, theirs in zip(found, open_media(path).video(), strict=True):
            assert np.array_equal(ours.rgb, theirs.rgb) and ours.time == pytest.approx(theirs.time, abs=0.03)


def test_a_sound_has_none(clip: Path, tmp_path: Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-i", clip, "-vn", "-c", "copy", tmp_path / "s.mp4"], check=True)
    with pytest.raises(InputError, match="has no video"):
        Pictures(tmp_path / "s.mp4")
