"""Floor, chance and ceiling: what maps that know nothing, and the best maps, score under a protocol.

H x W canvas, h x w the model's grid, S masks of one image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation.canvas import area_average, centre_map
from avgn.evaluation.metrics import average_precision, iou
from avgn.evaluation.protocols import Protocol

Array = NDArray[Any]

NOISE_SEED = 20230618
OUTSIDE_STEP = 1e-3


class FixedMap:
    """One map [H, W] scored against many masks; its sorting is done once."""

    def __init__(self, score: Array) -> None:
        self.score = score
        flat = score.ravel()
        # n_above[p] = #{pixels >= score of p}
        self._above = flat.size - np.searchsorted(np.sort(flat), flat, side="left")

    def average_precision(self, masks: Array) -> Array:
        """AP [S] against masks [S, H, W]; NaN for an empty mask."""
        result = np.full(len(masks), np.nan)
        for s, mask in enumerate(masks.reshape(len(masks), -1) > 0):
            if mask.any():
                above = np.sort(self._above[mask])
                result[s] = np.mean(np.searchsorted(above, above, side="right") / above)
        return result

    def iou(self, masks: Array, protocol: Protocol) -> Array:
        """IoU [S] under a protocol's rule."""
        score = protocol.normalise(self.score[None])[0]
        return np.array([float(iou(protocol.binarise(score, mask)[0], mask)) for mask in masks])


def centre_blob(size: tuple[int, int]) -> FixedMap:
    """The floor: minus the distance to the centre."""
    return FixedMap(centre_map(size))


def noise(size: tuple[int, int]) -> FixedMap:
    """Chance: one fixed random value per pixel."""
    return FixedMap(np.random.default_rng(NOISE_SEED).random(size))


def best_maps(masks: Array, grid: tuple[int, int]) -> Array:
    """Maps on the model's grid that know the masks: [S, H, W] -> [S, h, w] float32.

    Each is the mask's mean per cell. Cells without any of the mask are ordered by their distance to it, so that
    a rule that must take more pixels than the mask has takes those around it.
    """
    return np.stack([_best_map(np.asarray(mask), grid) for mask in masks]) if len(masks) else np.zeros((0, *grid))


def ceiling_scores(masks: Array, grid: tuple[int, int], protocol: Protocol) -> tuple[Array, Array]:
    """(AP [S, S], IoU [S]) of the best maps of masks [S, H, W] under a protocol; AP[i, j] is map i on mask j."""
    maps = protocol.upsample(best_maps(masks, grid), protocol.canvas)
    precision = average_precision(maps, masks)
    maps = protocol.normalise(maps)
    overlap = [float(iou(protocol.binarise(score, mask)[0], mask)) for score, mask in zip(maps, masks, strict=True)]
    return precision, np.array(overlap)


def _best_map(mask: Array, grid: tuple[int, int]) -> Array:
    mean = area_average(mask.astype(np.float64), grid)
    y, x = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    inside = mean > 1e-12
    if inside.any() and not inside.all():
        squared = (y[~inside][:, None] - y[inside][None]) ** 2 + (x[~inside][:, None] - x[inside][None]) ** 2
        mean[~inside] = -OUTSIDE_STEP * np.sqrt(squared.min(axis=1)) / max(grid)
    return mean.astype(np.float32)
