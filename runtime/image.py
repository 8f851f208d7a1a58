"""Frames and maps as the halves expect them: the one definition of resizing for training, evaluation and live use."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.errors import MissingExtraError
from avgn.runtime.jpeg import check_work
from avgn.runtime.limits import MAX_STILL_PIXELS
from avgn.runtime.memory import refuse_shortage


def import_cv2() -> ModuleType:
    """OpenCV; raises MissingExtraError when it is not installed.

    It refuses pictures of more than MAX_STILL_PIXELS before it makes room for them, unless the user set that limit.
    """
    # OpenCV reads it once, when it is loaded
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_STILL_PIXELS))
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv", "runtime", error) from None
    module: ModuleType = cv2
    return module


def decode_still(name: object, data: bytes, flags: int | None = None) -> Pixels | None:
    """Return a picture of a file as OpenCV gives it, BGR [H, W, 3] uint8 without other flags; None for what is no
    picture.

    Raises ValueError, naming the picture, for one that is damaged or too large, or would take minutes.
    """
    cv2 = import_cv2()
    check_work(name, data)
    try:
        image: Pixels | None = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR if flags is None else flags) if data else None
        )
    except cv2.error as error:
        refuse_shortage(error)
        if "IMAGE_PIXELS" in str(error):
            most = MAX_STILL_PIXELS // 10**6
            raise ValueError(f"{name} has more than {most} million pixels: scale it down first") from None
        raise ValueError(f"{name} can't be read (it is damaged): mend or remove the item") from None
    return image


def resize(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Squash a frame [H, W, 3] uint8 to size (h, w): pixel areas where it shrinks, then bilinear where it grows."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f"a frame must be uint8 [H, W, 3], got {rgb.dtype} {rgb.shape}")
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width) of at least 1, got {size}")
    cv2 = import_cv2()
    shrunk = (min(height, rgb.shape[0]), min(width, rgb.shape[1]))
    if shrunk != rgb.shape[:2]:
        rgb = cv2.resize(rgb, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != (height, width):
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(rgb)


def upsample_map(maps: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear resizing, align_corners=False, of a map [h, w] or of maps [K, h, w] to size (H, W)."""
    if maps.ndim not in (2, 3) or maps.size == 0:
        raise ValueError(f"maps must be [h, w] or [K, h, w], got shape {maps.shape}")
    cv2 = import_cv2()
    stack = maps[None] if maps.ndim == 2 else maps
    flipped = (size[1], size[0])
    out = np.stack([cv2.resize(m, flipped, interpolation=cv2.INTER_LINEAR) for m in stack.astype(np.float32)])
    return out[0] if maps.ndim == 2 else out
