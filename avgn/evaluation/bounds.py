"""Computes floor, chance and ceiling: what maps that know nothing, and the best maps, score under a protocol.

H x W what a source is scored on, h x w its part of the model's grid, S masks of one image.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from avgn.evaluation.canvas import CANVAS, area_average, centre_map, lay_out
from avgn.evaluation.metrics import Ranking, iou, min_max
from avgn.evaluation.protocols import Protocol, Rule
from avgn.runtime.arrays import Array

NOISE_SEED = 20230618
ORDER_STEP = 1e-3
MIDDLE_STEP = 0.05
# a rule that looks at values lets a free map put its threshold at any share of a cell
MAP_LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8)


class FixedMap:
    """Scores one map [H, W] against many masks; its sorting and its binarisations are done once.

    Rules that look at values get it scaled to 0..1.
    """

    def __init__(self, score: Array) -> None:
        self.score = score
        self._scaled = min_max(score)[0]
        self._ranking = Ranking(score, stable=True)
        self._binary: dict[str, Array] = {}

    def average_precision(self, masks: Array) -> Array:
        """Compute AP [S] against masks [S, H, W]; NaN for an empty mask."""
        return np.array([self._ranking.average_precision(mask) for mask in masks.reshape(len(masks), -1) > 0])

    def iou(self, masks: Array, protocol: Protocol) -> Array:
        """Compute IoU [S] under a protocol's rule."""
        return np.array([float(iou(self._binarise(mask, protocol), mask)) for mask in masks])

    def _binarise(self, mask: Array, protocol: Protocol) -> Array:
        if protocol.rule == "area":
            chosen = np.zeros(self.score.size, dtype=bool)
            chosen[self._ranking.order[: np.count_nonzero(mask)]] = True
            return chosen.reshape(self.score.shape)
        if protocol.name not in self._binary:
            score = self._scaled if _is_by_value(protocol) else self.score
            self._binary[protocol.name] = protocol.binarise(score, mask)[0]
        return self._binary[protocol.name]


def centre_blob(size: tuple[int, int] = CANVAS, num_pictures: int = 1) -> FixedMap:
    """Make the map of the floor: minus the distance to the centre of each picture of this size."""
    return FixedMap(centre_map(size, num_pictures))


def noise(size: tuple[int, int] = CANVAS, num_pictures: int = 1) -> FixedMap:
    """Make the map of chance: one fixed random value per pixel."""
    return FixedMap(np.random.default_rng(NOISE_SEED).random((size[0], size[1] * num_pictures)))


def best_maps(mask: Array, grid: tuple[int, int]) -> Array:
    """Make candidates for the best map on the model's grid, with knowledge of the mask: [H, W] -> [3, h, w] float32.

    The mask's mean per cell; the cells that hold at least half of it; the cells that hold any of it. Equal cells are
    ordered by their distance to the mask's edge, then to its middle: no ties, as in the maps of a model, so a rule
    that takes more or fewer pixels than the mask has takes those next to its edge or leaves them out.
    """
    mean = area_average(mask.astype(np.float64), grid)
    inside = mean > 1e-12
    order = ORDER_STEP * _order(inside)
    return np.stack([values + order for values in (mean, mean >= 0.5, inside)]).astype(np.float32)


def ceiling_scores(
    masks: Array, grid: tuple[int, int], protocol: Protocol, *, num_pictures: int = 1, pieces: int = 1
) -> tuple[Array, Array]:
    """Score the best maps of masks [S, H, W], each on its own mask, under a protocol.

    AP is that of the mean-per-cell map, IoU that of the best candidate of `best_maps`; `num_pictures` and `pieces` as
    in `lay_out`. A grid of the masks' own size stands for a map that is free in every pixel.
    """
    if grid == masks.shape[1:]:
        return np.ones(len(masks)), np.array([_free_iou(mask, protocol) for mask in masks])
    precision, overlap = np.full(len(masks), np.nan), np.full(len(masks), np.nan)
    for s, mask in enumerate(masks):
        maps = lay_out(best_maps(mask, grid), protocol.upsample, num_pictures, pieces)
        precision[s] = Ranking(maps[0]).average_precision(mask.ravel() > 0)
        if _is_by_value(protocol):
            overlap[s] = max(float(iou(m > level, mask)) for m in maps for level in MAP_LEVELS)
        else:
            overlap[s] = max(float(iou(protocol.binarise(m, mask)[0], mask)) for m in maps)
    return precision, overlap


def _is_by_value(protocol: Protocol) -> bool:
    """Say whether a rule looks at values; raise ValueError for one whose floor and ceiling are not known here."""
    if protocol.rule not in get_args(Rule):
        raise ValueError(
            f"protocol {protocol.name!r} has a rule {protocol.rule!r} whose floor and ceiling are not known: "
            "add it to avgn/evaluation/bounds.py"
        )
    return protocol.rule == "value"


def _free_iou(mask: Array, protocol: Protocol) -> float:
    """Return the IoU of the best order of the pixels themselves: under the median it takes exactly half of them."""
    if protocol.rule == "area" or _is_by_value(protocol):
        return 1.0
    half = mask.size // 2
    if mask.dtype == bool:
        count = int(np.count_nonzero(mask))
        return min(count, half) / max(count, half)
    binary = np.zeros(mask.size, dtype=bool)
    binary[np.argsort(-mask.ravel(), kind="stable")[:half]] = True
    return float(iou(binary.reshape(mask.shape), mask))


def _order(inside: Array) -> Array:
    """Return the signed distance of each cell to the edge of `inside`, within -1..1, with the distance to its middle to
    decide."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(inside, 1)
    depth = distance_transform_edt(padded)[1:-1, 1:-1]
    if inside.any():
        depth = depth - distance_transform_edt(~inside)
    y, x = np.nonzero(inside) if inside.any() else np.nonzero(~inside)
    rows, columns = np.indices(inside.shape)
    middle = np.hypot(rows - y.mean() - 0.013, columns - x.mean() - 0.007)
    return np.asarray((depth - MIDDLE_STEP * middle) / max(inside.shape))
