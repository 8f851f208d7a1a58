"""Defines the canvas on which maps and masks are compared: boxes and masks to pixels, grids to pixels and back.

H x W is the canvas, h x w a model's grid, K maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from avgn.evaluation.metrics import consensus
from avgn.runtime.arrays import Array
from avgn.runtime.image import import_cv2, upsample_map
from avgn.runtime.manifest import Box, Source
from avgn.runtime.reading import read_still

Upsample = Callable[[Array, tuple[int, int]], Array]

CANVAS = (224, 224)


def box_mask(boxes: Sequence[Box], size: tuple[int, int] = CANVAS) -> Array:
    """Draw the union of boxes (x1, y1, x2, y2 normalised) as [H, W] bool: int(clip(x, 0, 1) * size), half-open."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    for box in boxes:
        x1, y1, x2, y2 = (min(max(float(v), 0.0), 1.0) for v in box)
        mask[int(y1 * height) : int(y2 * height), int(x1 * width) : int(x2 * width)] = True
    return mask


def read_mask(path: Path, size: tuple[int, int] = CANVAS) -> Array:
    """Read a mask image (anything but 0 is the object) as [H, W] bool: true where at least half of the area is."""
    image = read_still("mask", path, import_cv2().IMREAD_UNCHANGED)
    if image.ndim == 3:
        image = image[..., :3].max(axis=2)
    return resize_mask(image > 0, size)


def resize_mask(mask: Array, size: tuple[int, int] = CANVAS) -> Array:
    """Resize a mask [h, w]: true where it covers at least half of the new pixel's area."""
    if mask.shape == tuple(size):
        return mask.astype(bool)
    return np.asarray(area_average(mask.astype(np.float64), size) >= 0.5 - 1e-9)


def source_mask(sources: Sequence[Source], size: tuple[int, int] = CANVAS) -> Array:
    """Unite the masks of sources [H, W]: the mask file where there is one, else the boxes.

    bool; float64 weights in 0..1 where several people annotated a source and need not agree.
    """
    union = np.zeros(size, dtype=bool)
    for source in sources:
        union = np.maximum(union, _one_mask(source, size))
    return union


def _one_mask(source: Source, size: tuple[int, int]) -> Array:
    if source.mask is not None:
        return read_mask(source.mask, size)
    if source.annotators is not None:
        return consensus(np.stack([box_mask(boxes, size) for boxes in source.annotators]))
    return box_mask(source.boxes, size)


def area_average(values: Array, size: tuple[int, int]) -> Array:
    """Average `values` [H, W] over each cell of a grid of `size` (h, w); cells may cut through pixels."""
    rows = _overlap(values.shape[0], size[0])
    columns = _overlap(values.shape[1], size[1])
    return np.asarray(rows @ values @ columns.T)


def upsample_bilinear(maps: Array, size: tuple[int, int] = CANVAS) -> Array:
    """Upsample [K, h, w] -> [K, H, W] float32 bilinearly, as the runtime does; constant maps stay exactly constant."""
    maps = np.asarray(maps, dtype=np.float32)
    if not len(maps):
        return np.zeros((0, *size), dtype=np.float32)
    canvas = upsample_map(maps, size)
    flat = is_flat(maps)
    canvas[flat] = maps[flat, :1, :1]
    return canvas


def upsample_bicubic(maps: Array, size: tuple[int, int] = CANVAS) -> Array:
    """Upsample [K, h, w] -> [K, H, W] float32 bicubically (a = -0.75, half-pixel centres); constant maps stay
    constant."""
    maps = np.asarray(maps, dtype=np.float32)
    if not len(maps):
        return np.zeros((0, *size), dtype=np.float32)
    cv2 = import_cv2()
    canvas = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_CUBIC) for one in maps])
    flat = is_flat(maps)
    canvas[flat] = maps[flat, :1, :1]
    return canvas


def lay_out(maps: Array, upsample: Upsample, num_frames: int = 1, pieces: int = 1) -> Array:
    """Upsample maps [K, h, w] of `num_frames` side by side to [K, H, num_frames * W].

    `pieces` maps that were made apart stand side by side in `maps`; each is upsampled alone.
    """
    size = (CANVAS[0], CANVAS[1] * num_frames // pieces)
    if pieces == 1:
        return upsample(maps, size)
    return np.concatenate([upsample(piece, size) for piece in np.split(maps, pieces, axis=-1)], axis=-1)


def part_of(canvas: Array, part: int | None) -> Array:
    """Return picture number `part` of a canvas [..., H, n * W]; the whole canvas for None."""
    return canvas if part is None else canvas[..., part * CANVAS[1] : (part + 1) * CANVAS[1]]


def is_flat(maps: Array) -> Array:
    """Return which maps [K, h, w] are constant: [K] bool."""
    return np.asarray(maps.max(axis=(-2, -1)) == maps.min(axis=(-2, -1)))


def centre_map(size: tuple[int, int] = CANVAS, num_frames: int = 1) -> Array:
    """Make the map that ignores the picture: minus the distance of each pixel's centre to the picture's centre.

    size: of one picture; [H, num_frames * W].
    """
    y = np.arange(size[0]) + 0.5 - size[0] / 2
    x = np.arange(size[1]) + 0.5 - size[1] / 2
    return np.asarray(np.tile(-np.hypot(y[:, None], x[None, :]), num_frames))


def _overlap(source: int, target: int) -> Array:
    """Return [target, source] weights: the share of each target cell that each source pixel covers."""
    edges = np.arange(target + 1) * source / target
    pixel = np.arange(source)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(covered, 0, None) * target / source)
