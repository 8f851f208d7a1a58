"""Floors and ceilings: fast forms against the plain metrics, and the known values of the real sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.evaluation import bounds, evaluate_bounds, metrics
from avgn.evaluation.canvas import CANVAS, box_mask
from avgn.evaluation.protocols import PROTOCOLS
from avgn.importers.base import usable_boxes
from avgn.importers.boxes import Order
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box, Item, Manifest, Source, read_manifest, write_manifest

METADATA = Path(__file__).resolve().parents[2].parent / "shared" / "metadata"


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_fixed_map_scores_as_any_map(name: str) -> None:
    rng = np.random.default_rng(0)
    masks = np.stack([box_mask([(0.1, 0.2, 0.5, 0.9)]), box_mask([(0.6, 0.6, 0.65, 0.7)]), rng.random(CANVAS) < 0.2])
    for fixed in (bounds.centre_blob(CANVAS), bounds.noise(CANVAS)):
        expected = metrics.average_precision(fixed.score[None], masks)[0]
        np.testing.assert_allclose(fixed.average_precision(masks), expected, atol=1e-12)
        # rules that look at values get a floor of 0..1
        score = fixed.score if PROTOCOLS[name].rule != "value" else metrics.min_max(fixed.score)[0]
        overlap = [float(metrics.iou(PROTOCOLS[name].binarise(score, mask)[0], mask)) for mask in masks]
        np.testing.assert_allclose(fixed.iou(masks, PROTOCOLS[name]), overlap)
    assert np.isnan(bounds.centre_blob(CANVAS).average_precision(np.zeros((1, *CANVAS)))[0])


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_no_tried_map_beats_the_ceiling(name: str) -> None:
    rng = np.random.default_rng(1)
    protocol = PROTOCOLS[name]
    for _ in range(6):
        x, y, w, h = rng.uniform(0, 0.5), rng.uniform(0, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5)
        mask = box_mask([(x, y, x + w, y + h)])
        _, best = bounds.ceiling_scores(mask[None], (7, 7), protocol)
        rivals = rng.normal(size=(20, 7, 7)).astype(np.float32)
        for rival in protocol.upsample(rivals, CANVAS):
            assert metrics.iou(protocol.binary(rival, mask)[0], mask) <= best[0] + 0.02


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_does_what_its_rule_says(name: str) -> None:
    """Floors and ceilings are made for the rule that a protocol names, so a wrong name would give wrong numbers."""
    protocol = PROTOCOLS[name]
    rng = np.random.default_rng(2)
    score = rng.permutation(10_000).reshape(100, 100) / 10_000
    small, large = rng.random((100, 100)) < 0.1, rng.random((100, 100)) < 0.6
    chosen = [protocol.binarise(score, mask)[0] for mask in (small, large)]
    counts = [np.count_nonzero(pixels) for pixels in chosen]
    # whatever it counts, it takes the largest
    for pixels, count in zip(chosen, counts, strict=True):
        assert np.array_equal(pixels, score >= np.sort(score.ravel())[-count])
    bent = [np.count_nonzero(protocol.binarise(score**3, mask)[0]) for mask in (small, large)]
    if protocol.rule == "area":
        assert counts == bent == [np.count_nonzero(small), np.count_nonzero(large)]
    elif protocol.rule == "median":
        assert counts == bent == [5_000, 5_000]
    else:
        assert counts[0] == counts[1] > bent[0]


def test_a_rule_without_known_bounds_is_refused() -> None:
    fraction = replace(PROTOCOLS["source-wise"], name="upper tenth", rule="fraction")  # type: ignore[arg-type]
    mask = box_mask([(0.1, 0.2, 0.5, 0.9)])
    for bound in (
        lambda: bounds.noise(CANVAS).iou(mask[None], fraction),
        lambda: bounds.ceiling_scores(mask[None], (7, 7), fraction),
        lambda: bounds.ceiling_scores(mask[None], CANVAS, fraction),
    ):
        with pytest.raises(ValueError, match=r"'upper tenth' has a rule 'fraction' whose floor and ceiling are not"):
            bound()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.8])
def test_a_map_that_is_free_in_every_pixel_takes_half_of_them_under_the_median(share: float) -> None:
    """The half holds the mask, or lies in it."""
    mask = np.zeros(CANVAS, dtype=bool)
    mask.ravel()[: round(share * mask.size)] = True
    expected = min(share, 0.5) / max(share, 0.5)
    for given in (mask, mask.astype(np.float64)):
        precision, overlap = bounds.ceiling_scores(given[None], CANVAS, PROTOCOLS["source-wise"])
        assert precision.tolist() == [1.0] and overlap[0] == pytest.approx(expected, abs=1e-3)
    assert bounds.ceiling_scores(mask[None], CANVAS, PROTOCOLS["adaptive"])[1].tolist() == [1.0]


def test_best_maps_are_the_mean_the_half_full_and_the_touched_cells_in_order() -> None:
    # on a grid of 8 x 8: cells of columns 2 and 3 are full, of column 4 a quarter; rows 2 to 5
    mask = box_mask([(2 / 8, 2 / 8, 4.25 / 8, 6 / 8)])
    mean, half, touched = bounds.best_maps(mask, (8, 8))
    full, quarter = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    full[2:6, 2:4], quarter[2:6, 4] = True, True
    for found, expected in ((mean, full + 0.25 * quarter), (half, 1.0 * full), (touched, 1.0 * (full | quarter))):
        np.testing.assert_allclose(found, expected, atol=0.02)
    # of cells that hold nothing those next to the mask come first, and those in its middle before those at its edge
    outside = half * ~(full | quarter)
    assert outside[3, 1] > outside[3, 0] and outside[1, 3] > outside[0, 3] and outside[3, 5] > outside[3, 6]
    assert touched[3, 3] > touched[3, 2] and len(np.unique(half)) == half.size


@pytest.mark.parametrize("grid", [(7, 7), (14, 10), (3, 5)])
def test_best_maps_of_full_large_and_tiny_masks(grid: tuple[int, int]) -> None:
    for name, full in (("source-wise", 0.5), ("adaptive", 1.0)):
        masks = np.stack([np.ones(CANVAS, dtype=bool), box_mask([(0, 0, 1, 0.75)]), box_mask([(0.5, 0.5, 0.51, 0.51)])])
        precision, overlap = bounds.ceiling_scores(masks, grid, PROTOCOLS[name])
        assert np.isfinite(precision).all()
        assert overlap[0] == pytest.approx(full, abs=0.02)
        assert overlap[1] > 0.6


def _read(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((METADATA / name).read_text())
    return rows


def _sets() -> dict[str, list[list[Box]]]:
    """The boxes of every scored thing, through the importer's own reading of boxes."""
    report = Report()
    solo, duet, vggss = (_read(f"{name}.json") for name in ("music_solo", "music_duet", "vggss"))

    def usable(boxes: list[Any], order: Order) -> list[Box]:
        return list(usable_boxes(boxes, order, "id", report, "file"))

    return {
        "music-solo": [usable([row["bbox"]], "xywh") for row in solo],
        "music-duet source 1": [usable([row["bbox_src1"]], "xywh") for row in duet],
        "music-duet source 2": [usable([row["bbox_src2"]], "xywh") for row in duet],
        "vgg-ss": [usable(row["bbox"], "xyxy") for row in vggss],
    }


# items, scorable; centre blob under the median, pixel AP of the centre and of chance, best possible under the median
KNOWN = {
    "music-solo": (2124, 2124, (99.2, 33.9, 21.1, 30.6), (51.5, 18.9), (99.9, 42.2, 30.6, 37.6)),
    "music-duet source 1": (1020, 1020, (100, 20.3, 0.2, 23.6), (25.0, 16.7), (100, 81.1, 1.0, 33.4)),
    "music-duet source 2": (1020, 1020, (98.4, 0, 0, 12.9), (19.2, 6.5), (98.4, 0, 0, 13.0)),
    "vgg-ss": (5158, 5156, (88.2, 60.1, 34.0, 37.4), (60.7, 31.2), (91.0, 69.4, 50.5, 49.5)),
}


@pytest.mark.skipif(not METADATA.is_dir(), reason="the annotation files (../shared/metadata) are not here")
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_floors_and_ceilings_of_real_sets(name: str, tmp_path: Path) -> None:
    count, scorable, floor, precision, ceiling = KNOWN[name]
    items = [
        Item(
            id=str(n),
            sources=(Source(label="thing", sounding=True, on_screen=True, boxes=tuple(boxes)),),
            split="test",
            dataset=name,
            video=str(n),
        )
        for n, boxes in enumerate(_sets()[name])
    ]
    write_manifest(tmp_path / "manifest.jsonl", ["thing"], items)
    [result] = evaluate_bounds(read_manifest(tmp_path / "manifest.jsonl"), ["source-wise"])
    assert (result["images"], result["items"], sum(result["skipped"].values())) == (count, scorable, count - scorable)
    rows = ("IoU@0.1", "IoU@0.3", "IoU@0.5", "AUC(IoU)")
    np.testing.assert_allclose([result["floor"][row] for row in rows], floor, atol=0.3)
    np.testing.assert_allclose([result["ceiling"][row] for row in rows], ceiling, atol=0.3)
    np.testing.assert_allclose([result[bound]["CAP"] for bound in ("floor", "chance")], precision, atol=0.3)


@pytest.mark.skipif(not METADATA.is_dir(), reason="the annotation files (../shared/metadata) are not here")
@pytest.mark.parametrize("name", ["music-solo", "vgg-ss"])
def test_a_coarse_grid_costs_little(name: str) -> None:
    boxes = _sets()[name]
    masks = np.stack([mask for mask in map(box_mask, boxes[:: len(boxes) // 60]) if mask.any()])
    free = bounds.ceiling_scores(masks, CANVAS, PROTOCOLS["source-wise"])[1]
    area = masks.mean(axis=(1, 2))
    np.testing.assert_allclose(free, np.minimum(area, 0.5) / np.maximum(area, 0.5))
    on_grid = bounds.ceiling_scores(masks, (7, 7), PROTOCOLS["source-wise"])[1]
    assert (on_grid <= free + 0.01).all()
    assert on_grid.mean() == pytest.approx(free.mean(), abs=0.015)


def test_bounds_need_items_with_masks_and_a_sensible_grid(tmp_path: Path) -> None:
    item = Item(id="a", sources=(), split="test", dataset="d", video="v")
    manifest = Manifest(path=tmp_path / "m.jsonl", classes=("a",), items=(item,))
    with pytest.raises(InputError, match=r"from 1 to 224, got \(0, 7\)"):
        evaluate_bounds(manifest, grid=(0, 7))
    with pytest.raises(InputError, match="lists no items"):
        evaluate_bounds(replace(manifest, items=()))
    with pytest.raises(InputError, match="protocol video does not suit .* it needs a model"):
        evaluate_bounds(manifest, ["video"])
    [result] = evaluate_bounds(manifest, ["adaptive"])
    assert result["skipped"] == {"no sounding visible source": 1} and result["floor"]["CAP"] is None
