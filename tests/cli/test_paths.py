"""Paths that no file can have end every command in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from avgn.cli import main

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
