"""Ranks maps by their confidence, among pictures that should have none: SLAVC's extended sets.

D maps that were given, N images, R weightings of the images (bootstrap samples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avgn.evaluation.statistics import draw_clusters
from avgn.runtime.arrays import Array

IOU_LEVELS = (0.1, 0.3, 0.5)
BLOCK_DRAWS = 64


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Holds image, confidence and IoU (0 on a negative) of each map [D], and how many sources each image has [N]."""

    image: Array
    confidence: Array
    iou: Array
    positives: Array

    @property
    def num_negatives(self) -> int:
        """Count the images with a map and without a source."""
        return int(np.count_nonzero(self.positives[np.unique(self.image)] == 0))


def gather(found: Sequence[tuple[Array, Array] | None], positives: Sequence[int]) -> Detections:
    """Gather the detections (confidence, IoU) of N images; None stands for an image that is not ranked."""
    known = [(n, *pair) for n, pair in enumerate(found) if pair is not None]
    empty = [np.zeros(0)]
    return Detections(
        image=np.repeat([n for n, _, _ in known], [len(c) for _, c, _ in known]).astype(np.int64),
        confidence=np.concatenate([c for _, c, _ in known] or empty),
        iou=np.concatenate([i for _, _, i in known] or empty),
        positives=np.asarray(positives, dtype=np.float64),
    )


def ranked_values(detections: Detections) -> dict[str, float | None]:
    """Compute ranked AP, the largest F1, and precision and recall there, in percent at each IoU level; None if
    undefined.

    A map is right when its IoU reaches the level, on a negative never. precision(c) = right / given and
    recall(c) = right / sources, of the maps of confidence >= c; AP = sum of precision times the rise of recall.
    """
    whole = _ranked(detections, np.ones((1, len(detections.positives))))
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in whole.items()}


def ranked_intervals(
    detections: Detections, clusters: Array, *, samples: int, seed: int
) -> dict[str, list[float] | None]:
    """Bootstrap 95 % percentile intervals of `ranked_values`, drawing whole clusters (of N images) with replacement."""
    cluster, draws = draw_clusters(clusters, samples, seed)
    blocks = [_ranked(detections, draws[r : r + BLOCK_DRAWS][:, cluster]) for r in range(0, len(draws), BLOCK_DRAWS)]
    intervals: dict[str, list[float] | None] = {}
    for name in _ranked(detections, np.zeros((0, len(detections.positives)))):
        drawn = np.concatenate([block[name] for block in blocks] or [np.zeros(0)])
        drawn = drawn[~np.isnan(drawn)]
        intervals[name] = [float(v) for v in np.quantile(drawn, [0.025, 0.975])] if len(drawn) else None
    return intervals


def _ranked(detections: Detections, weight: Array) -> dict[str, Array]:
    """Compute every value [R] for weights [R, N] of the images."""
    order = np.argsort(-detections.confidence, kind="stable")
    ordered = detections.confidence[order]
    # maps of equal confidence enter the ranking together
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
    each = weight[:, detections.image[order]]
    given = np.cumsum(each, axis=1)[:, ends]
    total = (weight @ detections.positives)[:, None]
    values: dict[str, Array] = {}
    for level in IOU_LEVELS:
        right = np.cumsum(each * (detections.iou[order] >= level), axis=1)[:, ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(given > 0, right / given, 0.0)
            recall = right / total
            f1 = 2 * right / (given + total)
        known = total[:, 0] > 0
        rise = np.diff(recall, axis=1, prepend=0.0)
        values[f"ranked AP@{level}"] = np.where(known, 100 * (precision * rise).sum(axis=1), np.nan)
        if not len(ends):
            zeros = np.where(known, 0.0, np.nan)
            best_f1 = best_precision = best_recall = zeros
        else:
            best = np.argmax(f1, axis=1)[:, None]
            best_f1, best_precision, best_recall = (
                np.where(known, 100 * np.take_along_axis(one, best, axis=1)[:, 0], np.nan)
                for one in (f1, precision, recall)
            )
        values[f"max-F1@{level}"] = best_f1
        values[f"precision at max-F1@{level}"] = best_precision
        values[f"recall at max-F1@{level}"] = best_recall
    return values
