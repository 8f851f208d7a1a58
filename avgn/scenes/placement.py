"""Places the objects of a picture at random, so that every object stays at least three quarters visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_HIDDEN_SHARE = 0.25
MAX_TRIES = 40


def place(
    masks: Sequence[NDArray[np.bool_]], height: int, width: int, rng: np.random.Generator, restarts: int = 4
) -> list[tuple[int, int]] | None:
    """Return top-left corners (x, y) for objects drawn in this order (later ones cover earlier ones).

    At most MAX_HIDDEN_SHARE of every mask is covered by later ones or cut off by the border.
    None if no such places were found: the caller draws other objects.
    """
    for _ in range(restarts):
        corners = _place_once(masks, height, width, rng)
        if corners is not None:
            return corners
    return None


def paste(
    mask: NDArray[Any], x: int, y: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices (of the frame, of the sprite [h, w, ...]) where a sprite at (x, y) lies inside; both may be
    empty."""
    h, w = mask.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = max(min(x + w, width), left), max(min(y + h, height), top)
    frame = slice(top, bottom), slice(left, right)
    return frame, (slice(top - y, bottom - y), slice(left - x, right - x))


def _place_once(
    masks: Sequence[NDArray[np.bool_]], height: int, width: int, rng: np.random.Generator
) -> list[tuple[int, int]] | None:
    owner = np.zeros((height, width), np.uint8)
    areas = [int(mask.sum()) for mask in masks]
    visible = np.zeros(len(masks) + 1, np.int64)
    corners: list[tuple[int, int]] = []
    for index, mask in enumerate(masks):
        h, w = mask.shape
        for _ in range(MAX_TRIES):
            x, y = (_coordinate(rng, frame, size) for frame, size in ((width, w), (height, h)))
            frame, local = paste(mask, x, y, height, width)
            inside = mask[local]
            count = int(inside.sum())
            if count < (1 - MAX_HIDDEN_SHARE) * areas[index]:
                continue
            lost = np.bincount(owner[frame][inside], minlength=len(masks) + 1)
            if any(visible[k + 1] - lost[k + 1] < (1 - MAX_HIDDEN_SHARE) * areas[k] for k in range(index)):
                continue
            visible[1:] -= lost[1:]
            owner[frame][inside] = index + 1
            visible[index + 1] = count
            corners.append((x, y))
            break
        else:
            return None
    return corners


def _coordinate(rng: np.random.Generator, frame: int, size: int) -> int:
    """Draw a start at which at most a tenth of the object lies outside, on either side."""
    slack = size // 10
    low, high = -slack, frame - size + slack
    if low > high:
        low, high = high, low
    return int(rng.integers(low, high + 1))
