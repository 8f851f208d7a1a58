"""What items truly show: consensus of annotators, pictures side by side, and the known errors of the annotations."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.evaluation import evaluate_bounds
from avgn.evaluation.canvas import box_mask
from avgn.evaluation.metrics import average_precision, consensus, iou
from avgn.evaluation.truth import read_truth
from avgn.runtime.manifest import Box, Item, Manifest, Part, Source

METADATA = Path(__file__).resolve().parents[2].parent / "shared" / "metadata"
needs_metadata = pytest.mark.skipif(
    not METADATA.is_dir(), reason="the annotation files (../shared/metadata) are not here"
)
LEFT, RIGHT, TOP = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.5)


def _item(*sources: Source, **facts: Any) -> Item:
    return Item(id="i", sources=sources, split="test", dataset=facts.pop("dataset", "d"), video="v", **facts)


def _source(label: str, *boxes: Box, **facts: Any) -> Source:
    return Source(label=label, sounding=True, on_screen=True, boxes=boxes, **facts)


def test_consensus_of_three_annotators_by_hand() -> None:
    masks = np.array([[[1, 1, 1, 0]], [[0, 1, 1, 0]], [[0, 0, 1, 0]]], dtype=bool)
    weight = consensus(masks)
    assert weight.tolist() == [[0.5, 1.0, 1.0, 0.0]]
    binary = np.array([[True, True, False, True]])
    # inside 0.5 + 1, of 2.5 and one pixel beside
    assert float(iou(binary, weight)) == pytest.approx(1.5 / 3.5)
    assert average_precision(np.array([[[4.0, 3, 2, 1]]]), weight[None])[0, 0] == 1.0


def test_annotators_make_a_weighted_mask() -> None:
    item = _item(_source("sound", LEFT, TOP, annotators=((LEFT,), (TOP,))))
    targets = read_truth(item, ["sound"]).targets["own"]
    mask = targets.masks[0]
    assert (mask[0, 0], mask[0, 223], mask[223, 0], mask[223, 223]) == (1.0, 0.5, 0.5, 0.0)
    assert targets.areas.tolist() == [0.75]
    manifest = Manifest(path=Path("m"), classes=("sound",), items=(item,))
    [wise] = evaluate_bounds(manifest, ["source-wise"])
    # half of the pixels, the surest first: a quarter of weight 1, a quarter of weight .5, of a sum of .5 in all
    assert wise["ceiling"]["AUC(IoU)"] == pytest.approx(100 * np.mean([t <= 0.75 for t in np.arange(20.5) / 20]), abs=3)


def test_pictures_of_a_pair_lie_side_by_side() -> None:
    part = Part(frame=Path("f"), audio=Path("a"))
    sources = [_source("b", LEFT, part=0), _source("a", RIGHT, part=1), _source("a", TOP, part=0)]
    truth = read_truth(_item(*sources, parts=(part, part)), ["a", "b"], ["own", "whole"])
    own, whole = truth.targets["own"], truth.targets["whole"]
    assert own.labels == (0, 0, 1) and own.parts == (0, 1, 0) and truth.repeated and truth.num_frames == 2
    assert (own.masks[1] == box_mask([RIGHT])).all()
    assert whole.labels == (0, 1) and whole.parts == (None, None) and whole.masks.shape == (2, 224, 448)
    assert (whole.masks[0] == np.concatenate([box_mask([TOP]), box_mask([RIGHT])], axis=1)).all()
    assert whole.areas.tolist() == [0.5, 0.25]


def test_a_single_picture_is_its_own_canvas() -> None:
    truth = read_truth(_item(_source("a", LEFT)), ["a"], ["whole", "own", "misread"])
    assert truth.targets["own"] is truth.targets["whole"] and truth.view("whole") == "own"
    # other data sets than MUSIC are not misread
    assert (truth.targets["misread"].masks == truth.targets["own"].masks).all()


def _corners(box: Any) -> Box:
    x, y, w, h = (float(v) for v in box)
    return (x, y, min(1.0, x + w), min(1.0, y + h))


@needs_metadata
def test_the_release_loses_the_boxes_of_music() -> None:
    solo = json.loads((METADATA / "music_solo.json").read_text())
    duet = json.loads((METADATA / "music_duet.json").read_text())
    boxes = {"solo": [row["bbox"] for row in solo], "duet": [row["bbox_src2"] for row in duet]}
    empty = Counter[str]()
    for kind, rows in boxes.items():
        for row in rows:
            item = _item(_source("a", _corners(row)), dataset=f"music-{kind}")
            truth = read_truth(item, ["a"], ["own", "misread"])
            assert not truth.targets["own"].skipped
            empty[kind] += truth.targets["misread"].skipped["empty mask"]
    assert empty == {"duet": 1016, "solo": 1648}


@needs_metadata
def test_pairs_of_one_class_in_vggsound_duet() -> None:
    with (METADATA / "vggsound_duet_test.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    classes = sorted({label for row in rows for label in (row[1], row[3])})
    part = Part(frame=Path("f"), audio=Path("a"))
    repeated = 0
    for row in rows:
        sources = (_source(row[1], LEFT, part=0), _source(row[3], LEFT, part=1))
        repeated += read_truth(_item(*sources, parts=(part, part)), classes, []).repeated
    assert repeated == 22
