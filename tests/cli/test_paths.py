"""Paths that no file can have end every command in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avgn.cli import main
from avgn.runtime.outputs import no_empty_folders
from tests.commands import refused

LONG = "a" * 300 + ".mp4"


@pytest.mark.parametrize(
    "command",
    [
        ("localize", "tiny", LONG),
        ("localize", "tiny", "clip.mp4", "--output", LONG),
        ("serve", LONG),
        ("localize", "tiny", "--manifest", LONG),
        ("probe", LONG),
        ("export", LONG, "bundle"),
        ("train", LONG, "--output", "out"),
        ("evaluate", "tiny", LONG),
        ("shard", LONG, "shards"),
        ("convert", LONG, "checkpoint"),
        ("demo", "--output", LONG),
    ],
    ids=lambda command: "-".join(part for part in command if part != LONG),
)
def test_a_name_that_is_too_long(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("avgn: ")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_empty_output_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(("localize", "tiny", "clip.mp4", "--output", "")) == 2
    assert "is empty" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_folder_in_which_nothing_came_to_be_goes_again(tmp_path: Path) -> None:
    video = tmp_path / "videos" / "dog" / "a.mp4"
    video.parent.mkdir(parents=True)
    # no video, so that nothing is cut
    video.write_bytes(b"no video" * 100)
    refused("import", "videos", tmp_path / "videos", "--output", tmp_path / "m.jsonl")
    source = {"label": "dog", "sounding": True, "on_screen": True}
    item = {"id": "a", "frame": "a.jpg", "audio": "a.wav", "sources": [source]}
    lines = [{"format": "avgn-manifest", "version": 1, "classes": ["dog"]}, item]
    (tmp_path / "scenes.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    refused("inspect", tmp_path / "scenes.jsonl", "--output", tmp_path / "sheet")
    assert {path.name for path in tmp_path.iterdir()} == {"videos", "scenes.jsonl"}


def test_folders_that_were_there_stay(tmp_path: Path) -> None:
    old, new, full = (tmp_path / name for name in ("old", "new", "full"))
    old.mkdir()
    with pytest.raises(KeyboardInterrupt), no_empty_folders(old, new, full):
        new.mkdir()
        full.mkdir()
        (full / "a").write_text("a")
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"old", "full"}
