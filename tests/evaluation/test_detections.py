"""Confidence-ranked metrics against scikit-learn, and SLAVC's extended sets through a whole evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve

from avgn.evaluation import evaluate, format_table, predict
from avgn.evaluation.canvas import box_mask
from avgn.evaluation.detections import Detections, ranked_intervals, ranked_values
from avgn.evaluation.metrics import confidence
from avgn.runtime.arrays import Array

Make = Callable[..., Any]
A, B, C = (0.05, 0.1, 0.5, 0.6), (0.4, 0.3, 0.95, 0.9), (0.1, 0.5, 0.4, 0.95)


def _reference(conf: Array, overlap: Array, positives: int, level: float) -> dict[str, float]:
    """scikit-learn's recall is of the maps that are right; here it is of all sources."""
    right = overlap >= level
    if not right.any():
        return {"ranked AP": 0.0, "max-F1": 0.0}
    share = right.sum() / positives
    precision, recall, _ = precision_recall_curve(right, conf)
    recall = recall * share
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    return {"ranked AP": 100 * average_precision_score(right, conf) * share, "max-F1": 100 * f1.max()}


def _draw(seed: int, levels: int) -> Detections:
    rng = np.random.default_rng(seed)
    positives = (rng.random(60) < 0.6) * 1.0
    ranked = np.flatnonzero(rng.random(60) < 0.9)
    return Detections(
        image=ranked,
        confidence=np.round(rng.random(len(ranked)) * levels) / levels,
        iou=np.where(positives[ranked] > 0, rng.random(len(ranked)), 0),
        positives=positives,
    )


@pytest.mark.parametrize("levels", [4, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_ranked_metrics_are_scikit_learns(seed: int, levels: int) -> None:
    found = _draw(seed, levels)
    values = ranked_values(found)
    for level in (0.1, 0.3, 0.5):
        expected = _reference(found.confidence, found.iou, int(found.positives.sum()), level)
        for name, value in expected.items():
            assert values[f"{name}@{level}"] == pytest.approx(value, abs=1e-9)
        precision, recall = (values[f"{side} at max-F1@{level}"] for side in ("precision", "recall"))
        assert precision is not None and recall is not None
        assert 2 * precision * recall / (precision + recall) == pytest.approx(values[f"max-F1@{level}"])


def test_an_iou_at_the_level_is_right_and_images_without_a_map_are_no_negatives() -> None:
    found = Detections(
        image=np.array([0, 0, 2]),
        confidence=np.array([0.9, 0.8, 0.7]),
        iou=np.array([0.5, 0.3, 0.0]),
        positives=np.array([2.0, 0.0, 0.0, 0.0]),
    )
    values = ranked_values(found)
    assert [values[f"ranked AP@{level}"] for level in (0.1, 0.3, 0.5)] == [100, 100, 50]
    # of three images without a source one was given a map
    assert found.num_negatives == 1


def test_intervals_of_ranked_metrics_by_drawing_images_again() -> None:
    found = _draw(9, 10**6)
    ours = ranked_intervals(found, np.arange(60), samples=1000, seed=1)["ranked AP@0.3"]
    rng = np.random.default_rng(2)
    drawn = []
    row = {image: place for place, image in enumerate(found.image)}
    for _ in range(300):
        images = rng.integers(0, 60, 60)
        chosen = [row[n] for n in images if n in row]
        positives = int(found.positives[images].sum())
        drawn.append(_reference(found.confidence[chosen], found.iou[chosen], positives, 0.3)["ranked AP"])
    assert ours is not None
    np.testing.assert_allclose(ours, np.quantile(drawn, [0.025, 0.975]), atol=4)
    assert ranked_intervals(found, np.arange(60), samples=50, seed=1) == ranked_intervals(
        found, np.arange(60), samples=50, seed=1
    )


def test_nothing_ranked_is_nothing_found() -> None:
    none = np.zeros(0)
    empty = Detections(image=none.astype(int), confidence=none, iou=none, positives=np.ones(3))
    assert set(ranked_values(empty).values()) == {0.0}
    no_sources = Detections(image=np.arange(2), confidence=np.ones(2), iou=np.zeros(2), positives=np.zeros(2))
    assert set(ranked_values(no_sources).values()) == {None}
    assert no_sources.num_negatives == 2
    assert set(ranked_intervals(no_sources, np.arange(2), samples=10, seed=0).values()) == {None}


def test_confidence_is_the_mean_of_the_top_quarter() -> None:
    rng = np.random.default_rng(0)
    maps = np.round(rng.normal(size=(3, 8, 10)), 1)
    expected = [np.mean(sorted(one.ravel(), reverse=True)[:20]) for one in maps]
    np.testing.assert_allclose(confidence(maps), expected)
    assert confidence(np.array([[[2.0, 1.0, 0.0]]])) == 2.0


def test_extended_sets_through_a_whole_evaluation(
    make_manifest: Make, scene_type: Make, tone_engine: Make, noisy: Make
) -> None:
    scenes = [
        scene_type(sounding=(("bell", A),)),
        scene_type(sounding=(("drum", B),)),
        scene_type(sounding=(("horn", C),)),
        scene_type(silent=(("flute", A),)),
        scene_type(silent=(("bell", B),), hidden=("drum",)),
        scene_type(hidden=("horn",)),
        scene_type(),
    ]
    manifest = make_manifest(scenes)
    [result] = evaluate(noisy(tone_engine(), 8, 1e-4), manifest, ["slavc"], ["given"], bootstrap=30)
    conf, overlap = [], []
    for item, maps in zip(manifest.items, predict(noisy(tone_engine(), 8, 1e-4), manifest).maps, strict=True):
        canvas = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(224, 224), mode="bicubic")[0]
        scaled = (canvas.numpy().astype(np.float64) + 1) / 2
        sure = [float(np.sort(one.ravel())[-224 * 56 :].mean()) for one in scaled]
        shown = [s for s in item.sources if s.sounding and s.on_screen]
        listed = [manifest.classes.index(s.label) for s in item.sources] or list(range(4))
        conf.append(max(sure[k] for k in listed))
        overlap.append(0.0)
        if shown:
            binary, mask = scaled[listed[0]] >= 0.5, box_mask(shown[0].boxes)
            overlap[-1] = (binary & mask).sum() / (binary | mask).sum()
    for level in (0.1, 0.3, 0.5):
        for name, value in _reference(np.array(conf), np.array(overlap), 3, level).items():
            assert result["metrics"][f"{name}@{level}"] == pytest.approx(value, abs=1e-6)
    assert result["negatives"] == 4 and result["items"] == 3 and result["images"] == 7
    low, high = result["ci95"]["ranked AP@0.3"]
    assert low <= high
    assert result["floor"]["ranked AP@0.3"] <= result["ceiling"]["ranked AP@0.3"] == 100
    assert "negatives among the ranked: 4" in format_table([result])
