"""Which word of a command is a bundle, and which bundle is run where none is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from avgn.cli.chosen import split_bundle
from avgn.runtime import Localizer
from avgn.scenes.video import write_scene_video
from tests.commands import ROOT, avgn, forked

TINY = ROOT / "avgn" / "models" / "tiny"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as people have it: a bundle, a checkpoint, a folder of videos, one of other things, files."""
    shutil.copytree(TINY, tmp_path / "bundle")
    for name in ("run/config.json", "holiday/a.mp4", "notes/a.txt", "clip.mp4", "clip", "weights.onnx", "tiny", "7"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "bundle"),
    [
        ("world clip.mp4", "world"),
        ("tiny", "tiny"),  # the name, not the file that is called so
        ("./tiny", None),
        ("bundle clip.mp4", "bundle"),
        ("bundle", "bundle"),
        ("run clip.mp4", "run"),
        ("bundle/bundle.json clip.mp4", "bundle/bundle.json"),
        ("weights.onnx clip.mp4", "weights.onnx"),
        ("notes clip.mp4", "notes"),
        ("mistyped clip.mp4", "mistyped"),
        ("mistyped", None),
        ("clip.mp4", None),
        ("clip", None),
        ("clip.mp4 clip", None),
        ("gone.mp4 clip.mp4", None),
        ("holiday", None),
        ("holiday clip.mp4", None),
        ("notes", None),
        ("camera:0", None),
        ("0", None),
        ("/dev/video0", None),
        ("rtsp://camera/stream", None),
        ("file:clip.mp4", None),
        ("7", None),
        ("", None),
    ],
)
def test_the_first_word_is_a_bundle_or_a_video(here: Path, words: str, bundle: str | None) -> None:
    given = words.split()
    assert split_bundle(given) == (bundle, given[1:] if bundle else given)


def test_with_a_manifest_a_word_is_the_bundle(here: Path) -> None:
    assert split_bundle(["mistyped"], is_alone=True) == ("mistyped", [])
    assert split_bundle(["clip.mp4"], is_alone=True) == (None, ["clip.mp4"])


def test_world_is_used_where_no_bundle_is_named_and_that_is_said(tmp_path: Path) -> None:
    video, lines = tmp_path / "scene.mp4", tmp_path / "lines.jsonl"
    write_scene_video(video, seed=3, seconds=1.0)
    done = avgn("localize", video, "--json", lines)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["avgn: no bundle is named: world, the package's own for real things, is used"]
    assert len(lines.read_text().splitlines()) == 25
    done = forked("localize", "tiny", video, "--json", lines)
    assert done.returncode == 0 and done.stderr == "" and json.loads(lines.read_text().splitlines()[0])


def test_python_loads_world_where_nothing_is_named() -> None:
    localizer = Localizer.load()
    assert len(localizer.bundle.classes) == 65 and "dog" in localizer.bundle.classes
