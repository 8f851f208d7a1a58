"""The demo, the first thing that anyone sees, says what is true."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest

from avgn.demo import collage, run_demo
from avgn.demo.run import SCENE, SECONDS, SEED
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Source
from avgn.scenes.video import write_scene_video
from tests.commands import ROOT


def check(truth: Sequence[Source], lines: Path, late: float) -> tuple[float, float, int]:
    """Shares of the sounding sources that are found and of those said whose peaks lie in their boxes, and the frames
    with two sources; nothing may be said of what has not sounded within `late` seconds."""
    sources = {source.label: source for source in truth}
    said = sounding = found = inside = together = 0
    for line in map(json.loads, lines.read_text().splitlines()):
        time, frame = line["time"], line["frame"]
        heard = {source["label"]: source for source in line["sources"]}
        together += len(heard) > 1
        for label, source in heard.items():
            intervals = sources[label].intervals or ()
            assert any(start - late <= time <= end + late for start, end in intervals), (time, label)
            assert source["certainty"] >= 0.5
            box = (sources[label].track or ())[frame]
            assert box is not None
            x, y = source["peak"] or (-1, -1)
            said, inside = said + 1, inside + (box[0] <= x <= box[2] and box[1] <= y <= box[3])
        for label, source_truth in sources.items():
            if any(start <= time <= end for start, end in source_truth.intervals or ()):
                sounding, found = sounding + 1, found + (label in heard)
    return found / sounding, inside / said, together


def test_the_demo_of_drawn_things_says_what_is_true_and_nothing_else(tmp_path: Path) -> None:
    lines = run_demo(tmp_path / "out", bundle="tiny")
    assert not any("off-screen" in line for line in lines)
    truth = write_scene_video(tmp_path / "again.mp4", seed=SEED, seconds=SECONDS, split="test", config=SCENE)
    # an audio window lasts a second, and its centre is at the frame: a change shows half a second before to half behind
    found, inside, _ = check(truth.sources, tmp_path / "out" / "results.jsonl", 0.6)
    assert found >= 0.97 and inside >= 0.97
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet is not None and sheet.shape == (4 * 360, 3 * 640, 3)


def test_the_demo_of_real_things_says_what_is_true_and_nothing_else(tmp_path: Path) -> None:
    lines = run_demo(tmp_path / "out", bundle="world")
    truth = collage.true_sources()
    assert [source.label for source in truth if not source.sounding] == ["cat"] and "  cat      sounds never" in lines
    # a window is the mean of its three loudest patches of 2.975 s about the frame
    found, inside, together = check(truth, tmp_path / "out" / "results.jsonl", 1.7)
    assert found >= 0.9 and inside >= 0.97 and together >= 50
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet is not None and sheet.shape == (4 * 480, 3 * 640, 3)


def test_photographs_have_a_length_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--seconds is for drawn scenes: leave it out, or add --bundle tiny"):
        run_demo(tmp_path / "out", bundle="world", seconds=3.0)
    assert not (tmp_path / "out").exists()


def test_every_file_of_the_demo_is_small_and_has_its_author_and_licence() -> None:
    held = {file.name: file for file in collage.MATERIAL.iterdir()}
    listed = {row["file"]: row for row in json.loads(held.pop("sources.json").read_text())}
    assert held.keys() == listed.keys() and sum(file.stat().st_size for file in held.values()) < 1.5e6
    used = {panel.file for panel in collage.PANELS} | {cue.file for cue in collage.CUES}
    assert used == held.keys()
    notice = (ROOT / "NOTICE").read_text()
    for name, row in listed.items():
        assert name in notice and all(row[fact] in notice for fact in ("author", "licence", "source")), name
