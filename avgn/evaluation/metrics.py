"""The quantities of localization, as pure numpy functions.

P pixels of the canvas, N maps or items, S sources, M maps. `mask` g is boolean, or a weight in 0..1 where
annotators disagree; `score` S is the soft map at the mask's size; B is the binarised map.
"""

from __future__ import annotations

import math

import numpy as np

from avgn.runtime.arrays import Array

AUC_THRESHOLDS = np.arange(21) / 20
FLAT_LEVEL = 0.2
_AUC_WEIGHTS = np.where((np.arange(21) == 0) | (np.arange(21) == 20), 0.5, 1.0) / 20


def iou(binary: Array, mask: Array) -> Array:
    """Compute the intersection over union: sum(B g) / (sum(g) + sum(B [g = 0])).

    binary: [..., H, W] bool; mask: [..., H, W] bool or weights (then it is the consensus IoU).
    Returns [...] float64; NaN where both are empty.
    """
    binary = np.asarray(binary, dtype=bool)
    weight = np.asarray(mask)
    if weight.dtype == bool and binary.ndim == weight.ndim == 2:
        # the case of a whole evaluation: counting bits is many times faster than summing along axes
        total = np.count_nonzero(binary | weight)
        return np.asarray(np.count_nonzero(binary & weight) / total if total else np.nan)
    if weight.dtype == bool:
        inside = (binary & weight).sum(axis=(-2, -1)).astype(np.float64)
    else:
        inside = np.where(binary, weight, 0).sum(axis=(-2, -1), dtype=np.float64)
    union = weight.sum(axis=(-2, -1), dtype=np.float64) + (binary & (weight == 0)).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(union > 0, inside / np.where(union > 0, union, 1), np.nan))


def consensus(masks: Array) -> Array:
    """Return the weight of each pixel from the masks of A annotators: min(sum / 2, 1), [A, H, W] bool -> [H, W]
    float64."""
    return np.asarray(np.minimum(np.asarray(masks).sum(axis=0) / 2, 1.0))


def area_under_success(values: Array) -> Array:
    """Return each value's own area under its success curve over t = 0, 1/20, ..., 1 (trapezoid): [...] -> [...].

    The mean over items is the AUC of their success rates, because the trapezoid is linear.
    """
    reached = np.asarray(values)[..., None] >= AUC_THRESHOLDS
    return np.asarray(reached @ _AUC_WEIGHTS)


def auc(values: Array) -> float:
    """Return the area under the success rate of values [N] over t = i/20; NaN without values."""
    values = np.asarray(values)
    return float(area_under_success(values).mean()) if values.size else float("nan")


def average_precision(scores: Array, masks: Array) -> Array:
    """Compute the pixel AP of every map against every mask, with ties handled as in scikit-learn.

    scores: [M, ...] soft maps; masks: [S, ...] of the same pixels; a pixel is positive where its mask is > 0.
    Returns [M, S] float64; NaN for an empty mask. AP is the mean over the positives p of the share of positives among
    the pixels whose score is at least s_p. Raises ValueError for maps that hold NaN.
    """
    scores, masks = np.asarray(scores), np.asarray(masks)
    positive = masks.reshape(len(masks), math.prod(masks.shape[1:])) > 0
    result = np.full((len(scores), len(positive)), np.nan)
    if not len(positive):
        return result
    for m, score in enumerate(scores):
        ranking = Ranking(score)
        result[m] = [ranking.average_precision(chosen) for chosen in positive]
    return result


class Ranking:
    """Sorts the pixels of one map [...] once, to compare them with many masks.

    `order` [P]: pixels by falling value, equal ones row-major if `stable`, else in any order. Raises ValueError for a
    map that holds NaN.
    """

    def __init__(self, score: Array, *, stable: bool = False) -> None:
        flat = np.asarray(score).ravel()
        if np.isnan(flat).any():
            raise ValueError("scores hold NaN: average precision is undefined for them")
        self.order = np.argsort(-flat, kind="stable" if stable else None)
        ordered = flat[self.order]
        # the last pixel of each value, and how many pixels stand up to it
        last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(flat) - 1)
        self._last = None if len(last) == len(flat) else last
        self._above = last + 1.0

    def average_precision(self, positive: Array) -> float:
        """Return AP against a mask [P] bool; NaN for an empty one."""
        hits = np.cumsum(positive[self.order], dtype=np.float64)
        if not hits.size or not hits[-1]:
            return float("nan")
        if self._last is not None:
            hits = hits[self._last]
        gained = np.diff(hits, prepend=0.0)
        return float(gained @ (hits / self._above) / hits[-1])


def best_assignment(ap: Array) -> Array:
    """Return the one-to-one assignment of maps to sources with the largest sum of AP [M, S]: the map of each source
    [S], -1 for those that are left without one. The same values always give the same assignment.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(ap, maximize=True)
    owners = np.full(ap.shape[1], -1)
    owners[columns] = rows
    return owners


def permutation_invariant_ap(ap: Array) -> float:
    """Return PIAP of one image: the AP [M, S] of the best assignment of maps to sources, divided by the number of
    sources.

    With fewer maps than sources the rest score 0, with more the best S count.
    """
    ap = np.asarray(ap, dtype=np.float64)
    if ap.shape[1] == 0:
        raise ValueError("PIAP needs at least one source: leave images without sources out")
    owners = best_assignment(ap)
    return float(sum(ap[row, source] for source, row in enumerate(owners) if row >= 0) / len(owners))


def min_max(maps: Array) -> tuple[Array, Array]:
    """Return each map [..., H, W] scaled to 0..1; flat maps become zeros. Returns (maps, is_flat [...])."""
    low = maps.min(axis=(-2, -1), keepdims=True)
    span = maps.max(axis=(-2, -1), keepdims=True) - low
    flat = span == 0
    scaled = maps - low
    scaled /= np.where(flat, 1, span)
    return scaled, flat[..., 0, 0]


def at_least_median(score: Array) -> Array:
    """Binarise each map [..., H, W]: B = [S >= median(S)]."""
    median = np.median(score.reshape(*score.shape[:-2], -1), axis=-1)
    return np.asarray(score >= median[..., None, None])


def above_median(score: Array) -> Array:
    """Binarise each map [..., H, W]: B = [S > median(S)]."""
    median = np.median(score.reshape(*score.shape[:-2], -1), axis=-1)
    return np.asarray(score > median[..., None, None])


def above_share_of_max(score: Array, share: float) -> Array:
    """Binarise each map [..., H, W]: B = [S > share * max(S)]."""
    return np.asarray(score > share * score.max(axis=(-2, -1), keepdims=True))


def confidence(maps: Array) -> Array:
    """Return the mean of the top quarter of the pixels of each map: [..., H, W] -> [...] float64."""
    flat = maps.reshape(*maps.shape[:-2], -1)
    count = max(1, flat.shape[-1] // 4)
    top = np.partition(flat, flat.shape[-1] - count, axis=-1)[..., flat.shape[-1] - count :]
    return np.asarray(top.mean(axis=-1, dtype=np.float64))


def quiet_share(maps: Array) -> Array:
    """Return the share of pixels of each map [..., H, W] that are at most 0.2: [...] float64 (NSA, of silent
    classes)."""
    flat = (maps <= FLAT_LEVEL).reshape(-1, maps.shape[-2] * maps.shape[-1])
    shares = [np.count_nonzero(quiet) / quiet.size for quiet in flat]
    return np.array(shares).reshape(maps.shape[:-2])


def softmax(maps: Array) -> Array:
    """Return the softmax over the classes of each pixel: [K, ...] -> [K, ...]."""
    powers = np.exp(maps - maps.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def top_pixels(score: Array, count: int) -> tuple[Array, bool]:
    """Return the `count` highest pixels of one map [H, W]; ties go by value, then row-major.

    Returns (B [H, W] bool, tied): `tied` says that the row-major order decided.
    """
    flat = score.ravel()
    if not 0 <= count <= flat.size:
        raise ValueError(f"count must lie in 0..{flat.size}, got {count}")
    chosen = np.zeros(flat.size, dtype=bool)
    if count == 0:
        return chosen.reshape(score.shape), False
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    chosen[flat > threshold] = True
    level = np.flatnonzero(flat == threshold)
    needed = count - int(chosen.sum())
    chosen[level[:needed]] = True
    return chosen.reshape(score.shape), len(level) > needed


def terciles(areas: Array) -> Array:
    """Return the size group of each area [N]: 0 small, 1 medium, 2 large, cut at the 1/3 and 2/3 quantiles."""
    areas = np.asarray(areas, dtype=np.float64)
    if not areas.size:
        return np.zeros(0, dtype=np.int64)
    cuts = np.quantile(areas, [1 / 3, 2 / 3])
    return np.asarray((areas > cuts[0]).astype(np.int64) + (areas > cuts[1]))
