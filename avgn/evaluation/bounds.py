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
ORDER_STEP = 1e-3
MIDDLE_STEP = 0.05


class FixedMap:
    """One map [H, W] scored against many masks; its sorting is done once."""

    def __init__(self, score: Array) -> None:
        self.score = score
        flat = score.ravel()
        # n_above[p] = #{pixels >= score of p}
        self._above = flat.size - np.searchsorted(np.sort(flat), flat, side="left")
        self._normalised: dict[str, Array] = {}

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
        if protocol.name not in self._normalised:
            self._normalised[protocol.name] = protocol.normalise(self.score[None])[0]
        score = self._normalised[protocol.name]
        return np.array([float(iou(protocol.binarise(score, mask)[0], mask)) for mask in masks])


def centre_blob(size: tuple[int, int]) -> FixedMap:
    """The floor: minus the distance to the centre."""
    return FixedMap(centre_map(size))


def noise(size: tuple[int, int]) -> FixedMap:
    """Chance: one fixed random value per pixel."""
    return FixedMap(np.random.default_rng(NOISE_SEED).random(size))


def best_maps(mask: Array, grid: tuple[int, int]) -> Array:
    """Candidates for the best map on the model's grid, which know the mask: [H, W] -> [3, h, w] float32.

    The mask's mean per cell; the cells that hold at least half of it; the cells that hold any of it. Equal cells are
    ordered by their distance to the mask's edge, then to its middle: no ties, as in the maps of a model, so a rule
    that takes more or fewer pixels than the mask has takes those next to its edge or leaves them out.
    """
    mean = area_average(mask.astype(np.float64), grid)
    inside = mean > 1e-12
    order = ORDER_STEP * _order(inside)
    return np.stack([values + order for values in (mean, mean >= 0.5, inside)]).astype(np.float32)


def ceiling_scores(masks: Array, grid: tuple[int, int], protocol: Protocol) -> tuple[Array, Array]:
    """(AP [S], IoU [S]) of the best maps of masks [S, H, W], each on its own mask, under a protocol.

    AP is that of the mean-per-cell map, IoU that of the best candidate of `best_maps`.
    """
    precision, overlap = np.full(len(masks), np.nan), np.full(len(masks), np.nan)
    for s, mask in enumerate(masks):
        maps = protocol.upsample(best_maps(mask, grid), protocol.canvas)
        precision[s] = average_precision(maps[:1], mask[None])[0, 0]
        overlap[s] = max(float(iou(protocol.binarise(m, mask)[0], mask)) for m in protocol.normalise(maps))
    return precision, overlap


def _order(inside: Array) -> Array:
    """Signed distance of each cell to the edge of `inside`, within -1..1, with the distance to its middle to decide."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(inside, 1)
    depth = distance_transform_edt(padded)[1:-1, 1:-1]
    if inside.any():
        depth = depth - distance_transform_edt(~inside)
    y, x = np.nonzero(inside) if inside.any() else np.nonzero(~inside)
    rows, columns = np.indices(inside.shape)
    middle = np.hypot(rows - y.mean() - 0.013, columns - x.mean() - 0.007)
    return np.asarray((depth - MIDDLE_STEP * middle) / max(inside.shape))
