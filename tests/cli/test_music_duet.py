"""The README's path from the MUSIC-Duet layout to a figure: commands only."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import forked, refused

SMALL = (
    *("--preset", "avgn-tiny", "--visual-weights", "random", "--batch-size", "4", "--steps", "3", "--threads", "1"),
    *("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1"),
    *("--model.image-size=[64,64]", "--model.window-seconds=0.3", "--mixture", "[1,2]"),
)


def test_import_train_evaluate_figure(tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        done = forked(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("synthesize", "MUSIC", "--layout", "MUSIC", "--scenes", 30, "--test-scenes", 8, "--size", "96x96", "--jobs", 1)
    assert {path.name for path in (tmp_path / "MUSIC").iterdir()} >= {"frames", "audio", "metadata"}
    run("import", "music-duet", "MUSIC/", "--split", "train", "-o", "train.jsonl", "--strict")
    assert "items: " in run("import", "music-duet", "MUSIC", "-o", "test.jsonl", "--strict", "--check")
    run("inspect", "test.jsonl", "--output", "sheet")
    assert (tmp_path / "sheet" / "sheet.png").stat().st_size > 5000
    run("train", "train.jsonl", "--output", "run", *SMALL)
    table = run("evaluate", "run", "test.jsonl", "--json", "scores.json", "--bootstrap", 20)
    assert "CIoU@0.3" in table and "floor" in table
    scores = json.loads((tmp_path / "scores.json").read_text())
    found = {(row["protocol"], row["classes"]) for row in scores}
    assert {("source-wise", "given"), ("frame-wise", "given"), ("adaptive", "predicted")} <= found
    run("figure", "qualitative", "test.jsonl", "--model", "AVGN=run", "--output", "figure.png", "--count", 2)
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_layouts_that_can_not_be_written_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused_layout = ("synthesize", out, "--scenes", 4, "--layout")
    assert "layout 'MUSICK' is not known" in refused(*refused_layout, "MUSICK")
    assert "too few" in refused("synthesize", out, "--scenes", 1, "--layout", "MUSIC")
    assert "leave out --video" in refused(*refused_layout, "MUSIC", "--video", 2)
    out.mkdir()
    (out / "mine").write_text("")
    assert "not an empty folder" in refused(*refused_layout, "MUSIC")
