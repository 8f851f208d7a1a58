"""Paths that no file can have end every command in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from avgn.cli import main
from avgn.runtime.outputs import no_empty_folders
from tests.commands import ENVIRONMENT, refused
from tests.patience import PATIENCE

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


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full here")
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", [["--version"], ["devices"]], ids=lambda command: command[0])
def test_a_standard_output_on_a_full_disk_is_a_sentence(command: list[str], buffered: bool) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "avgn", *command],
            env=environment | ({} if buffered else {"PYTHONUNBUFFERED": "1"}),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert (done.returncode, done.stderr) == (
        2,
        "avgn: standard output - can't be written (no space left on the disk): free some space or choose another "
        "folder\n",
    )
