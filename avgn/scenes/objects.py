"""Draws objects: a class's silhouette and texture with random pose, colours and light, as a sprite to be placed."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.scenes.classes import CLASSES, SCENE_CLASSES
from avgn.scenes.draw import Draw
from avgn.scenes.outlines import Outline, Points

SUPERSAMPLE = 3
SUBPIXEL_BITS = 4
LEAN_CHANCE = 0.5
LEAN_WIDTH = 0.05
OBJECT_SATURATION = 0.35
OBJECT_VALUE = 0.3


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """Holds one drawn object, not yet placed: colour [h, w, 3] and alpha [h, w] float32 in 0..1, mask [h, w] bool.

    `shadow` is (offset x, offset y, softness, darkness) with lengths in pixels.
    """

    label: str
    colour: NDArray[np.float32]
    alpha: NDArray[np.float32]
    mask: NDArray[np.bool_]
    shadow: tuple[float, float, float, float]

    @property
    def area(self) -> int:
        """Count the pixels of the whole object."""
        return int(self.mask.sum())


def draw_sprite(label: str, area: float, d: Draw) -> Sprite:
    """Draw an object of a class so that its mask covers `area` pixels (to about 1 %)."""
    pose = _pose(d)
    wobble = _warp_field(d)
    parts = [(_warp(points, wobble), filled) for points, filled in SCENE_CLASSES[label].outline(d)]
    posed = [(points @ pose.T, filled) for points, filled in parts]
    corner = np.stack([points.min(axis=0) for points, filled in posed if filled]).min(axis=0)
    extent = np.stack([points.max(axis=0) for points, filled in posed if filled]).max(axis=0) - corner
    scale = 60.0 / float(extent.max())
    for _ in range(3):
        alpha = _coverage(posed, corner, extent, scale)
        mask = alpha >= 0.5
        covered = float(mask.sum())
        if abs(covered / area - 1) < 0.01:
            break
        scale *= math.sqrt(area / covered)
    colour = _paint(label, alpha, pose, corner, scale, d)
    size = math.sqrt(area)
    angle = d.uniform(0, 2 * np.pi)
    length = d.uniform(0.03, 0.12) * size
    shadow = (
        length * math.cos(angle),
        abs(length * math.sin(angle)),
        d.uniform(0.03, 0.09) * size,
        d.uniform(0.1, 0.6),
    )
    return Sprite(label=label, colour=colour, alpha=alpha, mask=mask, shadow=shadow)


def object_palette(label: str, d: Draw) -> NDArray[np.float32]:
    """Draw the colours of an object [3, 3] in 0..1: any colours, but half of the objects lean to a hue of their class.

    The lean is what brass or wood is to instruments: a hint that a colour histogram alone can't live on.
    """
    colours = palette(d, 3, least=(OBJECT_SATURATION, OBJECT_VALUE))
    if d.chance(LEAN_CHANCE):
        hue = (CLASSES.index(label) / len(CLASSES) + d.uniform(-LEAN_WIDTH, LEAN_WIDTH)) % 1.0
        rgb = colorsys.hsv_to_rgb(hue, d.uniform(0.6, 1.0), d.uniform(0.45, 1.0))
        colours[0] = np.array(rgb, dtype=np.float32)
    return colours


def palette(
    d: Draw, num: int = 3, contrast: float = 0.35, least: tuple[float, float] = (0.1, 0.12)
) -> NDArray[np.float32]:
    """Draw random colours [num, 3] in 0..1 that differ from their neighbours by at least `contrast` (L2).

    `least` bounds saturation and value from below.
    """
    colours: list[NDArray[np.float32]] = []
    while len(colours) < num:
        rgb = colorsys.hsv_to_rgb(
            d.uniform(0, 1, cycles=4), d.uniform(least[0], 1.0), d.uniform(least[1], 1.0, cycles=2)
        )
        colour = np.array(rgb, dtype=np.float32)
        if not colours or float(np.linalg.norm(colour - colours[-1])) >= contrast:
            colours.append(colour)
    return np.stack(colours)


def _pose(d: Draw) -> NDArray[np.float64]:
    """Draw a 2x2 matrix: anisotropic scale, shear, flip, rotation within 40 degrees."""
    stretch = d.log_uniform(0.82, 1.22)
    shear = d.uniform(-0.18, 0.18)
    flip = -1.0 if d.chance(0.5) else 1.0
    angle = math.radians(d.uniform(-40, 40))
    shape = np.array([[flip * stretch, shear], [0.0, 1 / stretch]])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    result: NDArray[np.float64] = turn @ shape
    return result


def _warp_field(d: Draw) -> NDArray[np.float64]:
    """Draw a smooth wobble of the outline: rows of (frequency x, frequency y, phase, shift x, shift y)."""
    depth = d.uniform(0.0, 0.05)
    rows = [
        (
            d.uniform(-3.5, 3.5),
            d.uniform(-3.5, 3.5),
            d.uniform(0, 2 * np.pi),
            depth * d.uniform(-1, 1),
            depth * d.uniform(-1, 1),
        )
        for _ in range(3)
    ]
    return np.array(rows)


def _warp(points: Points, field: NDArray[np.float64]) -> Points:
    """Cut the outline's edges into short pieces and move them by the wobble."""
    nexts = np.roll(points, -1, axis=0)
    pieces = np.maximum(1, np.ceil(np.linalg.norm(nexts - points, axis=1) / 0.12)).astype(int)
    index = np.repeat(np.arange(len(points)), pieces)
    start = np.repeat(np.cumsum(pieces) - pieces, pieces)
    t = ((np.arange(len(index)) - start) / pieces[index])[:, None]
    dense = points[index] * (1 - t) + nexts[index] * t
    wobble = np.sin(dense @ field[:, :2].T + field[:, 2])
    result: Points = dense + wobble @ field[:, 3:]
    return result


def _coverage(
    posed: Outline, corner: NDArray[np.float64], extent: NDArray[np.float64], scale: float
) -> NDArray[np.float32]:
    """Return how much of every pixel the silhouette covers: [h, w] float32 in 0..1."""
    width, height = (int(math.ceil(side * scale)) + 2 for side in extent)
    canvas = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    for points, filled in posed:
        pixels = ((points - corner) * scale + 1) * SUPERSAMPLE - 0.5
        cv2.fillPoly(
            canvas,
            [np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)],
            255 if filled else 0,
            shift=SUBPIXEL_BITS,
        )
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    result: NDArray[np.float32] = small.astype(np.float32) / np.float32(255)
    return result


def _paint(
    label: str,
    alpha: NDArray[np.float32],
    pose: NDArray[np.float64],
    corner: NDArray[np.float64],
    scale: float,
    d: Draw,
) -> NDArray[np.float32]:
    """Paint texture, light from one side, highlight, rounding and grain: colour [h, w, 3] in 0..1.

    label: the class. alpha: the silhouette's coverage [h, w] in 0..1. pose: the matrix [2, 2] from unit coordinates to
    posed ones. corner: (x, y) of the sprite's top-left corner in posed units. scale: pixels per posed unit.
    """
    height, width = alpha.shape
    x = ((np.arange(width, dtype=np.float32) - 0.5) / scale + corner[0]).astype(np.float32)[None, :]
    y = ((np.arange(height, dtype=np.float32) - 0.5) / scale + corner[1]).astype(np.float32)[:, None]
    back = np.linalg.inv(pose).astype(np.float32)
    u, v = back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y
    first, second = SCENE_CLASSES[label].texture(u, v, 1.0 / scale, d)
    base, accent, detail = object_palette(label, d)
    colour = base + first[..., None] * (accent - base)
    colour += second[..., None] * (detail - colour)
    angle = d.uniform(0, 2 * np.pi)
    ux, uy = math.cos(angle), math.sin(angle)
    slope = (x * ux + y * uy).astype(np.float32)
    light = 1 + d.uniform(0.05, 0.3) * slope
    sigma = d.uniform(0.03, 0.09) * math.sqrt(height * width)
    round_ = cv2.GaussianBlur(alpha, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    bevel = (np.gradient(round_, axis=1) * ux + np.gradient(round_, axis=0) * uy) * sigma
    light = light - np.float32(d.uniform(0.15, 0.7)) * bevel
    light *= 1 - np.float32(d.uniform(0.0, 0.4)) * (1 - np.clip(1.6 * round_ - 0.5, 0, 1))
    spot_x, spot_y, spread = d.uniform(-0.5, 0.5), d.uniform(-0.5, 0.5), d.uniform(0.15, 0.45)
    shine = np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / np.float32(2 * spread**2)) * np.float32(d.uniform(0, 0.4))
    colour *= light[..., None].astype(np.float32)
    colour += shine[..., None].astype(np.float32)
    grain = np.float32(d.uniform(0.0, 0.03))
    colour += grain * d.rng.standard_normal((height, width, 1), dtype=np.float32)
    result: NDArray[np.float32] = np.clip(colour, 0, 1).astype(np.float32)
    return result
