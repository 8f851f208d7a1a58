"""The public annotation files themselves: known counts, with one tiny picture and one sound under every id."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.evaluation.canvas import box_mask
from avgn.importers import import_dataset
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, read_manifest
from tests.importers.layouts import METADATA, link_files, options

pytestmark = pytest.mark.skipif(not METADATA.is_dir(), reason="the annotation files (../shared/metadata) are not here")


def imported(kind: str, root: Path, **values: Any) -> tuple[tuple[Item, ...], dict[str, Any]]:
    given = options(root, metadata=METADATA, **values)
    found = import_dataset(kind, given)
    items = read_manifest(given.output, check_files=False).items
    return items, found.report.to_json(items)


def music(root: Path, kind: str) -> Path:
    ids = [entry["file"] for entry in json.loads((METADATA / f"music_{kind}.json").read_text())]
    return link_files(root, ids, [id[:-10] for id in ids])


def cells(name: str) -> list[list[str]]:
    with (METADATA / name).open(newline="") as file:
        return [row for row in csv.reader(file) if row]


def test_music_solo_is_in_effect_seven_videos(tmp_path: Path) -> None:
    items, report = imported("music-solo", music(tmp_path, "solo"))
    assert len(items) == 2124 and not report["problems"]
    assert all(box_mask(source.boxes).any() for item in items for source in item.sources)
    assert len(report["videos"]) == 20
    assert sum(list(report["videos"].values())[:7]) == 2094
    entries = json.loads((METADATA / "music_solo.json").read_text())
    assert sum(not box_mask([tuple(entry["bbox"])]).any() for entry in entries) == 1648
    with pytest.raises(InputError, match="of 2124 boxes of music_solo.json make no sense as xyxy and 0 as xywh: they"):
        import_dataset("music-solo", options(tmp_path, metadata=METADATA, boxes="xyxy"))


def test_music_duet_has_no_empty_mask_and_one_dominant_video(tmp_path: Path) -> None:
    items, report = imported("music-duet", music(tmp_path, "duet"))
    assert len(items) == 1020 and not report["problems"]
    assert all(box_mask(source.boxes).any() for item in items for source in item.sources)
    assert all(len(item.sources) == 2 for item in items)
    assert next(iter(report["videos"].items())) == ("HnUOaSfTA6c", 1008)
    entries = json.loads((METADATA / "music_duet.json").read_text())
    assert sum(not box_mask([tuple(entry["bbox_src2"])]).any() for entry in entries) == 1016


@pytest.mark.parametrize("kind", ["solo", "duet"])
def test_music_training_lists(tmp_path: Path, kind: str) -> None:
    rows = cells(f"music_{kind}_train.txt")
    ids = [row[0] for row in rows[::200]]
    link_files(tmp_path, ids, [id[:-10] for id in ids])
    items, report = imported(f"music-{kind}", tmp_path, split="train")
    assert [item.id for item in items] == ids
    assert report["counts"]["classes"] == {"solo": 11, "duet": 8}[kind]
    assert len(report["problems"]["without a frame on disk"]) == len(rows) - len(ids)


def test_vggss(tmp_path: Path) -> None:
    entries = json.loads((METADATA / "vggss.json").read_text())
    negatives = {id for row in cells("vggss_test_plus_silent.csv")[1:] for id in row[:2]}
    ids = {entry["file"] for entry in entries} | negatives
    items, report = imported("vggss", link_files(tmp_path, ids, ids), extended=True)
    assert Counter(item.dataset for item in items) == {"vggss": 5158, "vggss-test-plus-silent": 5158}
    assert report["counts"]["boxes clipped to the picture"] == 12
    assert {kind: len(found) for kind, found in report["problems"].items()} == {
        "with a degenerate box": 18,
        "with no usable box": 2,
    }
    assert report["counts"]["classes"] == 221
    scored = [item for item in items if item.dataset == "vggss" and item.sources[0].boxes]
    assert len(scored) == 5156
    # silent videos with their own sound, and pictures with another one's
    assert sum(not item.sources for item in items) == 379
    flags = Counter((source.sounding, source.on_screen) for item in items for source in item.sources)
    assert flags == {(True, True): 5158, (False, True): 4779, (True, False): 4779}
    with pytest.raises(InputError, match="look like xyxy"):
        import_dataset("vggss", options(tmp_path, metadata=METADATA, boxes="xywh"))


def test_vggsound_duet(tmp_path: Path) -> None:
    rows = cells("vggsound_duet_test.csv")
    items, report = imported("vggsound-duet", link_files(tmp_path, *[[id for row in rows for id in row[::2]]] * 2))
    assert len(items) == 5158
    assert report["counts"]["pairs with two sources of the same class"] == 22
    drawn = {entry["file"]: entry["bbox"] for entry in json.loads((METADATA / "vggss.json").read_text())}
    for row, item in zip(rows, items, strict=True):
        assert [source.label for source in item.sources] == row[1::2]
        for id, source, part in zip(row[::2], item.sources, item.parts, strict=True):
            assert part.frame.name == f"{id}.jpg" and part.audio.name == f"{id}.wav"
            if source.boxes:
                assert source.boxes[0] in {tuple(np.clip(box, 0, 1)) for box in drawn[id]}
    assert "with another class than in vggss.json" not in report["problems"]


def test_flickr_and_its_negatives(tmp_path: Path) -> None:
    ids = {row[0] for row in cells("flickr_test.csv")}
    link_files(tmp_path, ids, ids | {row[1] for row in cells("flickr_test_plus_silent.csv")[1:]})
    (tmp_path / "Annotations").mkdir()
    items, report = imported("flickr", tmp_path, extended=True)
    assert len(items) == 500 and report["counts"]["silent negatives"] == 250
    assert len(report["problems"]["without annotations on disk"]) == 250


@pytest.mark.parametrize(
    ("kind", "frames", "without", "sources"), [("solo", 13472, 1116, 12356), ("duet", 11512, 1228, 15035)]
)
def test_dsol(tmp_path: Path, kind: str, frames: int, without: int, sources: int) -> None:
    entries = json.loads((METADATA / "dsol" / f"{kind}test.json").read_text())
    assert len(entries) == frames
    picked = dict(list(entries.items())[::40])
    root = link_files(tmp_path, [key.removesuffix(".jpg") for key in picked], {key.partition("/")[0] for key in picked})
    items, report = imported(f"dsol-{kind}", root)
    assert len(items) == len(picked)
    assert {item.id for item in items} == {key.removesuffix(".jpg").replace("/", "_") for key in picked}
    assert sum(not item.sources for item in items) == sum(not entry["bbox"] for entry in picked.values())
    assert sum(len(entry["bbox"]) for entry in entries.values()) == sources
    assert sum(not entry["bbox"] for entry in entries.values()) == without
    assert list(report["problems"]) == ["without a frame on disk"]


def test_instruments_lists(tmp_path: Path) -> None:
    ids = {id for row in cells("vgginstruments_multi_test.csv") for id in row[::2]}
    link_files(tmp_path, ids, ids)
    (tmp_path / "masks").mkdir()
    items, report = imported("vggsound-instruments", tmp_path, extended=True)
    assert len(items) == 446 and report["counts"]["classes"] == 37
    assert report["counts"]["pairs with two sources of the same class"] == 0
    items, _ = imported("vggsound-instruments", tmp_path)
    assert len(items) == 446
