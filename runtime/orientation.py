"""Decoded pictures as a person sees them: turned and mirrored as the file says, with square pixels.

H x W pixels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from avgn.runtime.arrays import Pixels
from avgn.runtime.av_features import side_data
from avgn.runtime.image import import_cv2
from avgn.runtime.limits import MAX_PIXEL_ASPECT, MAX_PIXELS

MATRIX = struct.Struct("=9i")


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a stored picture is turned: rows and columns exchanged first, then each reversed."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether no rotation alone would do it."""
        return (self.transposed + self.flip_rows + self.flip_columns) % 2 == 1

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise by which it is turned, after it was mirrored left to right if it is mirrored."""
        flips = (self.transposed, self.flip_rows, self.flip_columns)
        return ROTATIONS[flips]


# by transposed, flip_rows, flip_columns
ROTATIONS = {
    (False, False, False): 0,
    (True, True, False): 90,
    (False, True, True): 180,
    (True, False, True): 270,
    (False, False, True): 0,
    (True, False, False): 90,
    (False, True, False): 180,
    (True, True, True): 270,
}


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation in a decoded frame's display matrix: any of the eight; other angles count as the
    nearest."""
    data = _display_matrix(frame)
    if data is None:
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return Orientation(transposed=turns % 2 == 1, flip_rows=turns in (1, 2), flip_columns=turns in (2, 3))
    # a picture's point (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d, *_ = MATRIX.unpack(data)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(flip_rows=d < 0, flip_columns=a < 0)
    return Orientation(transposed=True, flip_rows=b < 0, flip_columns=c < 0)


def _display_matrix(frame: Any) -> bytes | None:
    from av.sidedata.sidedata import Type

    try:
        found = side_data(frame).get(Type.DISPLAYMATRIX)
    except ValueError:
        return None
    data = b"" if found is None else bytes(found)
    return data if len(data) == MATRIX.size else None


def shape_of(width: int, height: int, aspect: float) -> tuple[int, int]:
    """(width, height) of a stored picture with square pixels, where a stored one is `aspect` times as wide as high.

    The side that grows is the one whose pixels are too few; unbelievable aspects change nothing.
    """
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        return width, height
    grown = (max(1, round(width * aspect)), height) if aspect >= 1 else (width, max(1, round(height / aspect)))
    if grown[0] * grown[1] <= MAX_PIXELS:
        return grown
    return (width, max(1, round(height / aspect))) if aspect >= 1 else (max(1, round(width * aspect)), height)


class Turner:
    """Shows the pictures of one track upright.

    An orientation that lies among the pictures (H.264, HEVC) comes with the first of a sequence and holds for all of
    it; FFmpeg tells it with that one alone.
    """

    def __init__(self) -> None:
        self._how = Orientation()

    def __call__(self, frame: Any, aspect: float = 1.0) -> Pixels:
        """Return a decoded frame as [H, W, 3] uint8 RGB, upright, with square pixels."""
        how = orientation_of(frame)
        if how != Orientation() or frame.key_frame:
            self._how = how
        return upright(frame, aspect, self._how)


def upright(frame: Any, aspect: float, how: Orientation) -> Pixels:
    """Return a decoded frame as [H, W, 3] uint8 RGB, turned as `how` says, with square pixels."""
    rgb: Pixels = frame.to_ndarray(format="rgb24")
    height, width = rgb.shape[:2]
    shape = shape_of(width, height, aspect)
    if shape != (width, height):
        rgb = import_cv2().resize(rgb, shape, interpolation=import_cv2().INTER_LINEAR)
    if how.transposed:
        rgb = rgb.swapaxes(0, 1)
    if how.flip_rows:
        rgb = rgb[::-1]
    if how.flip_columns:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)
