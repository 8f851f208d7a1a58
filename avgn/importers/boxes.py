"""Reads boxes of public annotations: checks the order of their numbers by statistics and drops degenerate ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box

Order = Literal["xywh", "xyxy"]
# if more than this share of the boxes makes no sense in the expected order, the order is wrong and not the boxes
SUSPICIOUS_SHARE = 0.1
EDGE_SLACK_SHARE = 0.02
# how far rounding may push a box that ends at the picture's edge beyond it
ROUNDING_ERROR = 1e-6
# the public lists hold integers that overflowed
OVERFLOWED = 1e18
OTHER: dict[Order, Order] = {"xywh": "xyxy", "xyxy": "xywh"}


def check_order(boxes: Iterable[Any], order: Order, where: str) -> None:
    """Raise InputError that names the suspicion when the boxes can't be normalised ones in `order`."""
    listed = [read_numbers(box, where) for box in boxes]
    pixels = sum(any(value > 2 for value in box) for box in listed)
    if pixels > SUSPICIOUS_SHARE * len(listed):
        raise InputError(
            f"{pixels} of {len(listed)} boxes of {where} are far above 1: they look like pixels, "
            "so divide them by the width and height of the picture"
        )
    wrong = sum(not makes_sense(box, order) for box in listed)
    other = sum(not makes_sense(box, OTHER[order]) for box in listed)
    if wrong > SUSPICIOUS_SHARE * len(listed) and other < wrong:
        raise InputError(
            f"{wrong} of {len(listed)} boxes of {where} make no sense as {order} and {other} as {OTHER[order]}: "
            f"they look like {OTHER[order]}, so pass --boxes {OTHER[order]} or give the original file"
        )


def read_numbers(box: Any, where: str) -> Box:
    """Read four finite numbers. Raises InputError for anything else."""
    values = [v for v in box if isinstance(v, int | float)] if isinstance(box, list | tuple) else []
    if len(values) != 4 or len(box) != 4 or not all(abs(value) < math.inf for value in values):
        raise InputError(f"{where}: a box must be four numbers, got {box!r}: give the data set's own file")
    x, y, third, fourth = (float(max(-OVERFLOWED, min(OVERFLOWED, value))) for value in values)
    return (x, y, third, fourth)


def makes_sense(box: Box, order: Order) -> bool:
    """Return whether four numbers, read in this order, are a box with some area inside the picture."""
    x, y, third, fourth = box
    if order == "xyxy":
        return third > x and fourth > y
    return third > 0 and fourth > 0 and x + third <= 1 + EDGE_SLACK_SHARE and y + fourth <= 1 + EDGE_SLACK_SHARE


def to_corners(box: Any, order: Order, where: str) -> tuple[Box | None, bool]:
    """Convert to (x1, y1, x2, y2) clipped to the picture (None where nothing is left), and say whether it was
    clipped."""
    x1, y1, x2, y2 = read_numbers(box, where)
    if order == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    clipped = not all(-ROUNDING_ERROR <= value <= 1 + ROUNDING_ERROR for value in (x1, y1, x2, y2))
    x1, y1, x2, y2 = (min(1.0, max(0.0, value)) for value in (x1, y1, x2, y2))
    return ((x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None), clipped
