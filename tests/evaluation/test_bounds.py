"""Floors and ceilings: fast forms against the plain metrics, and the known values of the real sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avgn.evaluation import bounds, metrics
from avgn.evaluation.canvas import CANVAS, box_mask
from avgn.evaluation.protocols import PROTOCOLS
from avgn.runtime.manifest import Box

METADATA = Path(__file__).resolve().parents[2].parent / "shared" / "metadata"


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_fixed_map_scores_as_any_map(name: str) -> None:
    rng = np.random.default_rng(0)
    masks = np.stack([box_mask([(0.1, 0.2, 0.5, 0.9)]), box_mask([(0.6, 0.6, 0.65, 0.7)]), rng.random(CANVAS) < 0.2])
    for fixed in (bounds.centre_blob(CANVAS), bounds.noise(CANVAS)):
        expected = metrics.average_precision(fixed.score[None], masks)[0]
        np.testing.assert_allclose(fixed.average_precision(masks), expected, atol=1e-12)
        overlap = [float(metrics.iou(PROTOCOLS[name].binarise(fixed.score, mask)[0], mask)) for mask in masks]
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
        for rival in protocol.normalise(protocol.upsample(rivals, CANVAS)):
            assert metrics.iou(protocol.binarise(rival, mask)[0], mask) <= best[0] + 0.02


@pytest.mark.parametrize("grid", [(7, 7), (14, 10), (3, 5)])
def test_best_maps_of_full_large_and_tiny_masks(grid: tuple[int, int]) -> None:
    for name, full in (("source-wise", 0.5), ("adaptive", 1.0)):
        masks = np.stack([np.ones(CANVAS, dtype=bool), box_mask([(0, 0, 1, 0.75)]), box_mask([(0.5, 0.5, 0.51, 0.51)])])
        precision, overlap = bounds.ceiling_scores(masks, grid, PROTOCOLS[name])
        assert np.isfinite(precision).all()
        assert overlap[0] == pytest.approx(full, abs=0.02)
        assert overlap[1] > 0.6


def _solo_boxes() -> list[list[Box]]:
    rows = json.loads((METADATA / "music_solo.json").read_text())
    return [[(x, y, x + w, y + h)] for x, y, w, h in (row["bbox"] for row in rows)]


def _vggss_boxes() -> list[list[Box]]:
    rows = json.loads((METADATA / "vggss.json").read_text())
    return [[(box[0], box[1], box[2], box[3]) for box in row["bbox"]] for row in rows]


@pytest.mark.skipif(not METADATA.is_dir(), reason="the annotation files (../shared/metadata) are not here")
@pytest.mark.parametrize(
    ("read", "count", "floor", "precision", "ceiling"),
    [
        (_solo_boxes, 2124, (99.2, 33.9, 21.1, 30.6), (51.5, 18.9), (99.9, 42.2, 30.6, 37.6)),
        (_vggss_boxes, 5156, (88.2, 60.1, 34.0, 37.4), (60.7, 31.2), (91.0, 69.4, 50.5, 49.5)),
    ],
    ids=["music-solo", "vgg-ss"],
)
def test_known_floors_and_ceilings_of_real_sets(
    read: object, count: int, floor: tuple[float, ...], precision: tuple[float, ...], ceiling: tuple[float, ...]
) -> None:
    assert callable(read)
    masks = np.stack([mask for mask in map(box_mask, read()) if mask.any()])
    assert len(masks) == count
    protocol = PROTOCOLS["source-wise"]
    centre = bounds.centre_blob(CANVAS)

    def scores(overlap: np.ndarray) -> list[float]:
        return [100 * metrics.success_rate(overlap, t) for t in (0.1, 0.3, 0.5)] + [100 * metrics.auc(overlap)]

    np.testing.assert_allclose(scores(centre.iou(masks, protocol)), floor, atol=0.3)
    known = 100 * centre.average_precision(masks).mean(), 100 * masks.mean()
    np.testing.assert_allclose(known, precision, atol=0.3)
    # the known ceiling is that of a map with no ties, free in every pixel: it takes exactly half of them
    area = masks.mean(axis=(1, 2))
    free = np.minimum(area, 0.5) / np.maximum(area, 0.5)
    np.testing.assert_allclose(scores(free), ceiling, atol=0.3)
    some = slice(None, None, len(masks) // 200)
    on_grid = np.array([bounds.ceiling_scores(mask[None], (7, 7), protocol)[1][0] for mask in masks[some]])
    assert (on_grid <= free[some] + 0.01).all()
    np.testing.assert_allclose(scores(on_grid), scores(free[some]), atol=1.5)
