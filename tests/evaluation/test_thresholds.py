"""Thresholds against an exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from avgn.evaluation.calibration import calibrate
from avgn.evaluation.inference import predict
from avgn.evaluation.thresholds import best_threshold, calibrate_thresholds, class_thresholds
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest


def _best_f1(prob: np.ndarray, truth: np.ndarray) -> float:
    return max(float(f1_score(truth, prob >= t)) for t in np.unique(prob))


@pytest.mark.parametrize("levels", [None, 5, 2])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed: int, levels: int | None) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.3
    truth[0] = True
    prob = np.clip(0.3 * truth + rng.random(60) * 0.7, 0, 1)
    prob = prob if levels is None else np.round(prob * levels) / levels
    chosen = best_threshold(prob, truth)
    assert f1_score(truth, prob >= chosen) == pytest.approx(_best_f1(prob, truth), abs=1e-12)
    assert levels is not None or chosen not in prob


def test_threshold_lies_midway_in_the_widest_gap() -> None:
    prob = np.array([0.9, 0.8, 0.3, 0.2])
    assert best_threshold(prob, np.array([1, 1, 0, 0])) == pytest.approx(0.55)
    assert best_threshold(np.array([0.5, 0.5]), np.array([1, 1])) == pytest.approx(0.25)
    # F1 is 0.5 with 1, 5 and 9 examples taken; the widest of these gaps is that after the fifth
    prob = np.array([0.99, 0.98, 0.97, 0.96, 0.95, 0.35, 0.34, 0.33, 0.05])
    assert best_threshold(prob, np.array([1, 0, 0, 0, 1, 0, 0, 0, 1])) == pytest.approx(0.65)


def test_neighbouring_floats_stay_apart() -> None:
    high = 0.5
    low = np.nextafter(high, 0)
    prob = np.array([high, low])
    assert (prob >= best_threshold(prob, np.array([True, False]))).tolist() == [True, False]


def test_rare_classes_take_the_global_threshold() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((200, 3), dtype=bool)
    truth[:80, 0] = True
    truth[:9, 1] = True
    truth[:10, 2] = True
    prob = np.where(truth, 0.6, 0.1) + rng.random((200, 3)) * 0.2
    prob[:, 2] = np.where(truth[:, 2], 0.3, 0.05)
    chosen = class_thresholds(prob, truth)
    assert chosen[1] == pytest.approx(best_threshold(prob.ravel(), truth.ravel()))
    assert chosen[2] == pytest.approx(0.175)
    assert class_thresholds(prob, np.zeros_like(truth)).tolist() == [0.5] * 3


def test_both_heads_are_calibrated_and_clipped() -> None:
    truth = np.arange(40)[:, None] < np.array([20, 12])
    audio, visual = calibrate_thresholds(truth * 0.01, truth, 1 - 0.01 * ~truth, truth)
    assert audio.tolist() == [0.05, 0.05]
    assert visual.tolist() == [0.95, 0.95]


def test_sound_is_calibrated_on_what_sounds_and_sight_on_what_is_seen(
    make_manifest: Callable[..., Manifest], tone_engine: Callable[..., Any], noisy: Callable[..., Any]
) -> None:
    """Silent objects and sounds off-screen tell the two apart."""
    manifest = make_manifest(40)
    found = predict(noisy(tone_engine(), 3), manifest)
    names = manifest.classes
    heard, seen = np.zeros((40, len(names)), bool), np.zeros((40, len(names)), bool)
    for row, item in enumerate(found.items):
        for source in item.sources:
            heard[row, names.index(source.label)] |= source.sounding
            seen[row, names.index(source.label)] |= source.on_screen
    thresholds = calibrate(noisy(tone_engine(), 3), manifest)
    assert thresholds.audio == tuple(class_thresholds(found.audio_prob, heard))
    assert thresholds.visual == tuple(class_thresholds(found.visual_prob, seen))
    assert thresholds.audio != tuple(class_thresholds(found.audio_prob, seen))
    assert thresholds.visual != tuple(class_thresholds(found.visual_prob, heard))


def test_thresholds_are_not_calibrated_on_what_is_scored(
    make_manifest: Callable[..., Manifest], tone_engine: Callable[..., Any]
) -> None:
    manifest = make_manifest(3)
    with pytest.raises(InputError, match="3 items of .* are in .* too .*: calibrate thresholds on other items"):
        calibrate(tone_engine(), manifest, disjoint_from=manifest)
    rest = replace(manifest, items=())
    assert calibrate(tone_engine(), manifest, disjoint_from=rest) == calibrate(tone_engine(), manifest)


def test_wrong_shapes_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, K\]"):
        class_thresholds(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="NaN"):
        class_thresholds(np.full((3, 2), np.nan), np.ones((3, 2)))
    with pytest.raises(ValueError, match="no positive"):
        best_threshold(np.zeros(3), np.zeros(3))
