"""Changes pictures and sounds at random in training; spectrograms are changed by the training module.

Legend: H x W pixels, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.audio import fit_window
from avgn.runtime.image import resize


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Says how much to change at random; `NONE` changes nothing."""

    zoom: float = 1.15
    """The largest crop is the whole image, the smallest 1 / zoom of each side."""
    flip: float = 0.5
    """Chance that an image is mirrored."""
    light: float = 0.2
    """Share by which brightness and contrast vary."""
    color: float = 0.0
    """Share by which saturation and white balance vary."""
    gain_db: float = 6.0
    """Loudness varies by plus or minus so many decibels."""
    padding: float = 0.1
    """Chance that up to half of a window is silence, as at the edges of a stream."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.zoom <= 4.0:
            raise ValueError(f"zoom must lie in 1..4, got {self.zoom}: 1 leaves the picture whole")
        for name in ("flip", "light", "color", "padding"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}: 0 switches it off")
        if not 0.0 <= self.gain_db <= 40.0:
            raise ValueError(f"gain_db must lie in 0..40, got {self.gain_db}: 0 switches it off")


NONE = Augmentation(zoom=1.0, flip=0.0, light=0.0, color=0.0, gain_db=0.0, padding=0.0)


def augment_image(
    image: NDArray[np.uint8], size: tuple[int, int], how: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Crop and change a picture [H,W,3] of at most `zoom` times `size`: [*size, 3]."""
    zoom = rng.uniform(1.0, how.zoom, size=2)
    height, width = (min(side, round(target * z)) for side, target, z in zip(image.shape, size, zoom, strict=False))
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    crop = image[top : top + height, left : left + width]
    if rng.random() < how.flip:
        crop = crop[:, ::-1]
    crop = resize(np.ascontiguousarray(crop), size)
    gain = rng.uniform(1 - how.light, 1 + how.light)
    offset = 255 * rng.uniform(-how.light / 2, how.light / 2)
    if how.color > 0:
        crop = _recolor(crop, how.color, rng)
    table = np.clip(np.arange(256) * gain + offset, 0, 255).astype(np.uint8)
    return table[crop]


def _recolor(image: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change saturation within 1 +- share and each channel's gain within 1 +- share / 2, as one matrix of the
    channels."""
    import cv2

    saturation = rng.uniform(1 - share, 1 + share)
    gains = rng.uniform(1 - share / 2, 1 + share / 2, size=3)
    luma = np.array([0.299, 0.587, 0.114])
    matrix = gains[:, None] * (saturation * np.eye(3) + (1 - saturation) * luma[None, :])
    # cv2 rounds and clips
    return np.asarray(cv2.transform(image, matrix), dtype=np.uint8)


def cut_waveform(
    waveform: NDArray[np.float32], length: int, how: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a random window [length] out of a waveform [T], with a random gain; sometimes part of it is silence."""
    if len(waveform) > length:
        start = int(rng.integers(len(waveform) - length + 1))
        waveform = waveform[start : start + length]
    window = fit_window(waveform, length) * np.float32(10 ** (rng.uniform(-how.gain_db, how.gain_db) / 20))
    if rng.random() < how.padding:
        count = int(rng.integers(length // 2))
        if rng.random() < 0.5:
            window[:count] = 0
        else:
            window[length - count :] = 0
    return window
