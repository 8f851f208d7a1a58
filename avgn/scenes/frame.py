"""Composes pictures: sprites over a background, with exact masks of what stays visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.runtime.manifest import Box
from avgn.scenes.backgrounds import draw_background
from avgn.scenes.draw import Draw
from avgn.scenes.objects import Sprite, draw_sprite
from avgn.scenes.placement import paste, place

AREA_SHARES = (0.03, 0.20)
# Rasterised areas are off by up to 1 %: aiming a little inside keeps them in the promised range.
AREA_MARGIN = 1.015
CROWDED_ATTEMPTS = 12


@dataclass(frozen=True, kw_only=True)
class DrawnFrame:
    """Holds the frame [H, W, 3] uint8 RGB; for every object in the given order its visible mask [H, W] and whole area
    (share)."""

    frame: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]
    full_areas: tuple[float, ...]
    background: str


def draw_frame(labels: Sequence[str], height: int, width: int, d: Draw) -> DrawnFrame:
    """Draw one object a label over a background."""
    sprites, corners = draw_and_place(labels, height, width, d)
    background, canvas = draw_background(d, height, width)
    owner = np.zeros((height, width), np.uint8)
    for index in range(len(sprites)):
        compose(canvas, sprites[index], *corners[index])
        frame, local = paste(sprites[index].mask, *corners[index], height, width)
        owner[frame][sprites[index].mask[local]] = index + 1
    return DrawnFrame(
        frame=develop(canvas, d),
        masks=tuple(owner == index + 1 for index in range(len(sprites))),
        full_areas=tuple(sprite.area / (height * width) for sprite in sprites),
        background=background,
    )


def draw_and_place(
    labels: Sequence[str], height: int, width: int, d: Draw, most: float = 0.8
) -> tuple[list[Sprite], list[tuple[int, int]]]:
    """Return sprites of log-uniform area and places where each stays at least three quarters visible.

    Their areas sum to at most the share `most` of the frame. When no places are found for a crowd of large objects,
    all are drawn anew, so none ever vanishes.
    """
    for attempt in range(10 * CROWDED_ATTEMPTS):
        high = max(AREA_SHARES[1] * 0.93 ** max(0, attempt - CROWDED_ATTEMPTS), 1.5 * AREA_SHARES[0])
        shares = np.exp(d.rng.uniform(np.log(AREA_SHARES[0] * AREA_MARGIN), np.log(high / AREA_MARGIN), len(labels)))
        if shares.sum() > most:
            continue
        sprites = [draw_sprite(label, share * height * width, d) for label, share in zip(labels, shares, strict=True)]
        corners = place([sprite.mask for sprite in sprites], height, width, d.rng)
        if corners is not None:
            return sprites, corners
    raise AssertionError(f"{len(labels)} objects found no place")


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Return the tight box x1, y1, x2, y2 of a mask, normalised to the frame; None for an empty mask."""
    left, top, w, h = cv2.boundingRect(mask.view(np.uint8))
    if not w:
        return None
    height, width = mask.shape
    return (left / width, top / height, (left + w) / width, (top + h) / height)


def compose(canvas: NDArray[np.float32], sprite: Sprite, x: int, y: int) -> None:
    """Blend a sprite and its soft shadow into the canvas [H, W, 3] at the top-left corner (x, y), in place."""
    height, width = canvas.shape[:2]
    shift_x, shift_y, softness, darkness = sprite.shadow
    margin = int(2.5 * softness) + 1
    wide = cv2.copyMakeBorder(sprite.alpha, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    shade = cv2.GaussianBlur(wide, (0, 0), max(softness, 0.3))
    frame, local = paste(shade, x - margin + round(shift_x), y - margin + round(shift_y), height, width)
    canvas[frame] *= 1 - np.float32(darkness) * shade[local][..., None]
    frame, local = paste(sprite.alpha, x, y, height, width)
    patch = canvas[frame]
    patch += sprite.alpha[local][..., None] * (sprite.colour[local] - patch)


def develop(canvas: NDArray[np.float32], d: Draw) -> NDArray[np.uint8]:
    """Imitate a camera: slight blur, exposure and grain; [H, W, 3] float32 to uint8."""
    sigma = d.uniform(0.0, 0.9)
    if sigma > 0.25:
        canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)
    canvas = canvas * np.float32(255 * d.uniform(0.85, 1.1))
    noise = np.zeros(canvas.shape, np.int16)
    seed = int(d.rng.integers(2**31))
    cv2.setRNGSeed(seed)
    cv2.randn(noise, 0, 255 * d.uniform(0.0, 0.02) * 16)
    canvas += noise * np.float32(1 / 16)
    result: NDArray[np.uint8] = np.clip(canvas, 0, 255).astype(np.uint8)
    return result
