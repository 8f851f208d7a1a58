"""Where a map is hottest: its peak and the box around it, in coordinates normalised to the frame.

A map is [h, w]; cell (row, column) covers column / w .. (column + 1) / w in x and the same in y.
"""

from __future__ import annotations

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.image import import_cv2, upsample_map

Point = tuple[float, float]
Box = tuple[float, float, float, float]

FINE = 6


def min_max(heat: Floats) -> Floats:
    """Return the map scaled to 0..1; a flat map becomes zeros."""
    low, high = float(heat.min()), float(heat.max())
    if not high > low:
        return np.zeros(heat.shape, np.float32)
    return ((heat - low) / (high - low)).astype(np.float32)


def peak_of(heat: Floats) -> Point:
    """(x, y) of the hottest cell's centre, moved inside the cell to the top of a parabola through its neighbours.

    A flat map has its peak in the middle.
    """
    if not heat.max() > heat.min():
        return (0.5, 0.5)
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    y = (row + 0.5 + _vertex(heat[:, column], row)) / heat.shape[0]
    x = (column + 0.5 + _vertex(heat[row], column)) / heat.shape[1]
    return (float(x), float(y))


def region_box(heat: Floats, fraction: float) -> Box:
    """(x1, y1, x2, y2) around the connected region of the peak where the min-max map is at least `fraction`.

    Measured on the bilinearly upsampled map, FINE times finer than the grid. A flat map gives the whole frame.
    """
    fine = upsample_map(min_max(heat), (heat.shape[0] * FINE, heat.shape[1] * FINE))
    mask = (fine >= fraction * float(fine.max())).astype(np.uint8)
    _, labels, stats, _ = import_cv2().connectedComponentsWithStats(mask, connectivity=4)
    left, top, width, height = (int(value) for value in stats[labels.ravel()[int(fine.argmax())]][:4])
    rows, columns = fine.shape
    return (left / columns, top / rows, (left + width) / columns, (top + height) / rows)


def _vertex(line: Floats, at: int) -> float:
    """Offset in -0.5..0.5 of the parabola's top through line[at - 1 : at + 2]; 0 at the border."""
    if not 0 < at < len(line) - 1:
        return 0.0
    left, centre, right = (float(value) for value in line[at - 1 : at + 2])
    curve = left - 2 * centre + right
    return 0.0 if curve >= 0 else min(0.5, max(-0.5, 0.5 * (left - right) / curve))
