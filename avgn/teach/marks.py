"""Where a thing is in a picture of an example: boxes or a mask in a file beside it, as parts of the model's cells.

Legend: P cells, h x w the grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.documents import LARGEST
from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2, resize
from avgn.runtime.reading import read_still
from avgn.runtime.regions import Box
from avgn.runtime.texts import read_text
from avgn.teach.features import Encoders

MASK = ".mask"
PICTURES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"]
)


def read_marks(path: Path, cells: int, encoders: Encoders) -> Floats | None:
    """The part of each cell [P] that boxes or a mask beside a picture cover; None where there are none.

    Raises InputError for such a file that can't be used.
    """
    height, width = encoders.info.image_size
    plane: Floats | None = None
    mask = find_mask(path)
    beside = path.with_suffix(".json")
    if mask is not None:
        plane = resize(read_still("mask", mask), (height, width)).max(axis=2).astype(np.float32) / np.float32(255)
    elif beside.is_file():
        plane = draw_boxes(read_boxes(beside), (height, width))
    if plane is None:
        return None
    inside = covered(plane, encoders.info.grid)
    assert len(inside) == cells
    if not inside.max() > 0.05:
        raise InputError(f"{(mask or beside).name} beside it marks nothing in the picture")
    return inside


def find_mask(path: Path) -> Path | None:
    """The mask beside a picture, in any format that a picture may have; None where there is none."""
    endings = [ending for each in sorted(PICTURES, key=lambda each: each != ".png") for ending in (each, each.upper())]
    return next((file for ending in endings if (file := path.with_suffix(MASK + ending)).is_file()), None)


def draw_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> Floats:
    """[H, W]: one inside of boxes, else zero."""
    height, width = size
    plane = np.zeros(size, np.float32)
    for x1, y1, x2, y2 in boxes:
        plane[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = 1.0
    return plane


def covered(plane: Floats, grid: tuple[int, int]) -> Floats:
    """The part of each cell [P] that a plane [H, W] covers."""
    height, width = grid
    return np.asarray(import_cv2().resize(plane, (width, height), interpolation=3), np.float32).ravel()


def read_boxes(path: Path) -> list[Box]:
    """Read the boxes beside a picture, in parts of its sides. Raises InputError for what is none."""
    rule = '{"boxes": [[x1, y1, x2, y2], ...]} in parts of the picture\'s sides, from 0 to 1'
    try:
        raw: Any = json.loads(read_text(path, "boxes", "write it as UTF-8", most=LARGEST))
        boxes = [tuple(float(value) for value in box) for box in raw["boxes"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path.name} beside it must be {rule}") from None
    good = [box for box in boxes if len(box) == 4 and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1]
    if not boxes or len(good) != len(boxes):
        raise InputError(f"{path.name} beside it must be {rule}")
    return [(box[0], box[1], box[2], box[3]) for box in good]
