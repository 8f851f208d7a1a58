"""Chooses thresholds of the presence probabilities: per class the one that maximises F1 on validation data."""

from __future__ import annotations

import numpy as np

from avgn.runtime.arrays import Array

MIN_POSITIVES = 10
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.05, 0.95
UNTRAINED_THRESHOLD = 0.5


def calibrate_thresholds(audio_prob: Array, y_a: Array, visual_prob: Array, y_v: Array) -> tuple[Array, Array]:
    """Choose per-class thresholds of both heads.

    audio_prob, visual_prob: [N, K] probabilities; y_a, y_v: [N, K] truth (sounds; is seen).
    Returns (audio [K], visual [K]) float64. A class with fewer than 10 positives takes the global threshold.
    """
    return class_thresholds(audio_prob, y_a), class_thresholds(visual_prob, y_v)


def class_thresholds(prob: Array, truth: Array) -> Array:
    """Choose thresholds [K] of one head from prob [N, K] and truth [N, K], clipped to 0.05..0.95."""
    prob = np.asarray(prob, dtype=np.float64)
    truth = np.asarray(truth) > 0
    if prob.ndim != 2 or prob.shape != truth.shape:
        raise ValueError(f"probabilities {prob.shape} and truth {truth.shape} must both be [N, K]")
    if not np.isfinite(prob).all():
        raise ValueError("probabilities hold NaN or infinity: thresholds can't be set from them")
    whole = best_threshold(prob.ravel(), truth.ravel()) if truth.any() else UNTRAINED_THRESHOLD
    chosen = [
        best_threshold(prob[:, k], truth[:, k]) if truth[:, k].sum() >= MIN_POSITIVES else whole
        for k in range(prob.shape[1])
    ]
    return np.clip(np.array(chosen, dtype=np.float64), LOWEST_THRESHOLD, HIGHEST_THRESHOLD)


def best_threshold(prob: Array, truth: Array) -> float:
    """Find the threshold t that maximises the F1 of [prob >= t] for prob [N], truth [N] (at least one positive).

    Of equally good cuts the one with the widest gap is taken; t lies midway in the gap.
    """
    prob = np.asarray(prob, dtype=np.float64)
    truth = np.asarray(truth, dtype=bool)
    if not truth.any():
        raise ValueError("no positive example: F1 has no maximum")
    order = np.argsort(-prob, kind="stable")
    ordered = prob[order]
    last_of_level = np.append(ordered[1:] != ordered[:-1], True)
    hits = np.cumsum(truth[order])[last_of_level]
    said = (np.arange(len(prob)) + 1)[last_of_level]
    upper = ordered[last_of_level]
    lower = np.append(upper[1:], min(0.0, upper[-1]))
    score = 2 * hits / (said + truth.sum())
    candidates = np.flatnonzero(score >= score.max() - 1e-12)
    best = candidates[np.argmax((upper - lower)[candidates])]
    middle = (upper[best] + lower[best]) / 2
    return float(middle if lower[best] < middle else upper[best])
