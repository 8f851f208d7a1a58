"""Paints backgrounds: families of procedural pictures [h, w, 3] float32 in 0..1; each split has its own families."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw
from avgn.scenes.objects import palette

Canvas = NDArray[np.float32]
Field = NDArray[np.float32]


def clouds(d: Draw, height: int, width: int, cells: float, octaves: int = 4, rough: float = 0.5) -> Field:
    """Make value noise of several octaves in 0..1: [height, width].

    cells: how many random values lie along the width in the first octave; each further one of the `octaves` has twice
    as many and `rough` times the weight.
    """
    total = np.zeros((height, width), np.float32)
    weight, norm = 1.0, 0.0
    for _ in range(octaves):
        size = max(2, round(cells)), max(2, round(cells * height / width))
        grid = d.rng.random((size[1], size[0]), dtype=np.float32)
        total += np.float32(weight) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        norm += weight
        weight, cells = weight * rough, cells * 2
    low, high = float(total.min()), float(total.max())
    result: Field = (total - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return result


def axes(height: int, width: int, angle: float = 0.0) -> tuple[Field, Field]:
    """Return coordinates turned by an angle, in units of the longer side, centred: two [h, w]."""
    x = (np.arange(width, dtype=np.float32) - width / 2)[None, :] / max(height, width)
    y = (np.arange(height, dtype=np.float32) - height / 2)[:, None] / max(height, width)
    c, s = math.cos(angle), math.sin(angle)
    return (x * c + y * s).astype(np.float32), (y * c - x * s).astype(np.float32)


def blend(field: Field, colours: NDArray[np.float32]) -> Canvas:
    """Map a field in 0..1 to colours by linear interpolation between the rows of a palette."""
    table = np.linspace(0, 1, 256)
    knots = np.linspace(0, 1, len(colours))
    ramp = np.stack([np.interp(table, knots, colours[:, c]) for c in range(3)], axis=1).astype(np.float32)
    result: Canvas = ramp[(np.clip(field, 0, 1) * 255).astype(np.uint8)]
    return result


def _saw(phase: NDArray[np.floating[Any]]) -> Field:
    result: Field = (phase - np.floor(phase)).astype(np.float32)
    return result


def gradient(d: Draw, height: int, width: int) -> Canvas:
    """Paint a linear or radial fade with a little texture."""
    x, y = axes(height, width, d.uniform(0, 2 * np.pi))
    field = np.hypot(x - d.uniform(-0.4, 0.4), y) * 1.4 if d.chance(0.4) else x * d.uniform(0.6, 1.3) + 0.5
    field = field + d.uniform(0.0, 0.25) * (clouds(d, height, width, d.uniform(4, 20)) - 0.5)
    return blend(field, palette(d, 3, 0.2))


def sky(d: Draw, height: int, width: int) -> Canvas:
    """Paint clouds."""
    return blend(clouds(d, height, width, d.log_uniform(2, 12), 5, d.uniform(0.45, 0.75)), palette(d, 4, 0.2))


def stripe(d: Draw, height: int, width: int) -> Canvas:
    """Paint wavy stripes of two colours, with dirt."""
    x, y = axes(height, width, d.uniform(0, np.pi))
    rate = d.log_uniform(4, 22)
    phase = _saw(x * rate + d.uniform(0, 0.6) * np.sin(y * d.uniform(4, 20)))
    hard = np.clip((np.abs(2 * phase - 1) - d.uniform(0.25, 0.7)) * max(height, width) / rate / 2 + 0.5, 0, 1)
    return blend(0.75 * hard + 0.25 * clouds(d, height, width, 6), palette(d, 3, 0.2))


def bricks(d: Draw, height: int, width: int) -> Canvas:
    """Paint a wall of bricks with mortar, each of its own shade."""
    x, y = axes(height, width, d.uniform(-0.3, 0.3))
    rows, columns, gap = d.uniform(6, 14), d.uniform(3, 7), d.uniform(0.04, 0.12)
    row = np.floor(y * rows)
    across = x * columns + 0.5 * (row % 2)
    shade = d.rng.random((64, 64), dtype=np.float32)[row.astype(int) % 64, np.floor(across).astype(int) % 64]
    mortar = (_saw(across) < gap * columns / rows * 2) | (_saw(y * rows) < gap * 2)
    colours = palette(d, 3, 0.25)
    canvas = blend(0.15 + 0.6 * shade + 0.2 * (clouds(d, height, width, 16, 2) - 0.5), colours[:2])
    return np.where(mortar[..., None], colours[2], canvas).astype(np.float32)


def blobs(d: Draw, height: int, width: int) -> Canvas:
    """Paint blurred shapes, like a room out of focus."""
    colours = palette(d, 5, 0.15)
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = colours[0]
    for _ in range(d.integer(8, 20)):
        colour = tuple(float(c) for c in colours[d.integer(1, 4)])
        centre = int(d.rng.integers(width)), int(d.rng.integers(height))
        half = max(3, int(d.log_uniform(0.04, 0.3) * width)), max(3, int(d.log_uniform(0.04, 0.3) * height))
        if d.chance(0.5):
            cv2.ellipse(canvas, centre, half, d.uniform(0, 180), 0, 360, colour, -1)
        else:
            corners = cv2.boxPoints((centre, (2 * half[0], 2 * half[1]), d.uniform(0, 180)))
            cv2.fillConvexPoly(canvas, corners.astype(np.int32), colour)
    result: Canvas = cv2.GaussianBlur(canvas, (0, 0), d.log_uniform(0.8, 10))
    return result


def tiles(d: Draw, height: int, width: int) -> Canvas:
    """Paint square tiles with a motif."""
    x, y = axes(height, width, d.uniform(0, np.pi / 2))
    rate = d.uniform(4, 11)
    motif = np.hypot(_saw(x * rate) - 0.5, _saw(y * rate) - 0.5) if d.chance(0.5) else _saw(x * rate) * _saw(y * rate)
    field = 1.2 * motif + d.uniform(0, 0.4) * (clouds(d, height, width, 6) - 0.5)
    return blend(field, palette(d, 3, 0.2))


def weave(d: Draw, height: int, width: int) -> Canvas:
    """Paint cloth: crossing threads in broad bands (plaid)."""
    x, y = axes(height, width, d.uniform(-0.5, 0.5))
    bands = d.rng.random(64).astype(np.float32)
    rate = d.uniform(8, 24)
    field = 0.5 * bands[np.floor(x * rate).astype(int) % 64] + 0.5 * bands[np.floor(y * rate).astype(int) % 64 - 32]
    thread = 0.5 + 0.5 * np.sin((x + y) * d.uniform(120, 320))
    return blend(0.85 * field + 0.15 * thread, palette(d, 4, 0.2))


def ripples(d: Draw, height: int, width: int) -> Canvas:
    """Paint waves from two or three centres."""
    x, y = axes(height, width)
    field = np.zeros((height, width), np.float32)
    for _ in range(d.integer(2, 3)):
        field += np.sin(np.hypot(x - d.uniform(-0.6, 0.6), y - d.uniform(-0.6, 0.6)) * d.uniform(18, 60))
    return blend(0.5 + 0.2 * field, palette(d, 3, 0.2))


def shingles(d: Draw, height: int, width: int) -> Canvas:
    """Paint overlapping round scales."""
    x, y = axes(height, width, d.uniform(-0.4, 0.4))
    rate = d.uniform(5, 12)
    row = np.floor(y * rate)
    field = np.hypot(_saw(x * rate + 0.5 * (row % 2)) - 0.5, _saw(y * rate))
    return blend(field + 0.3 * (clouds(d, height, width, 5) - 0.5), palette(d, 3, 0.2))


def voronoi(d: Draw, height: int, width: int) -> Canvas:
    """Paint cells around random points, with borders."""
    small_h, small_w = (height + 1) // 2, (width + 1) // 2
    num = d.integer(10, 34)
    px, py = d.rng.random((2, num), dtype=np.float32) * np.array([[small_w], [small_h]], np.float32)
    x, y = np.arange(small_w, dtype=np.float32), np.arange(small_h, dtype=np.float32)
    distance = (x - px[:, None])[:, None, :] ** 2 + ((y - py[:, None]) ** 2)[:, :, None]
    nearest = distance.argmin(axis=0)
    shade = d.rng.random(num).astype(np.float32)[nearest]
    border = np.sqrt(distance.min(axis=0)) / math.sqrt(small_h * small_w / num)
    field = 0.7 * shade + d.uniform(0.1, 0.5) * border
    result: Canvas = cv2.resize(blend(field, palette(d, 4, 0.2)), (width, height), interpolation=cv2.INTER_LINEAR)
    return result


def wood(d: Draw, height: int, width: int) -> Canvas:
    """Paint boards with grain."""
    x, y = axes(height, width, d.choice([0.0, math.pi / 2]) + d.uniform(-0.2, 0.2))
    boards = d.uniform(2.5, 6)
    board = np.floor(y * boards).astype(int) % 16
    shift = d.rng.random(16).astype(np.float32)[board]
    warp = clouds(d, height, width, 4, 3)
    grain = 0.5 + 0.5 * np.sin((y * d.uniform(30, 70) + 3 * warp + 7 * shift + x * 4) * 2.2)
    field = (0.45 * grain + 0.3 * shift + 0.25 * warp) * np.where(_saw(y * boards) < 0.04, 0.3, 1.0)
    return blend(field.astype(np.float32), palette(d, 3, 0.2))


def landscape(d: Draw, height: int, width: int) -> Canvas:
    """Paint sky, ranges of hills and a meadow."""
    colours = palette(d, 6, 0.12)
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    canvas = blend(np.broadcast_to(rows * 1.3, (height, width)) + 0.2 * clouds(d, height, width, 3), colours[:2])
    x = np.arange(width, dtype=np.float32) / width
    level = d.uniform(0.3, 0.55)
    texture = clouds(d, height, width, 18, 3)[..., None] - 0.5
    for index in range(d.integer(2, 4)):
        line = level + sum(
            (d.uniform(0.01, 0.07) * np.sin(x * d.uniform(3, 9) * (k + 1) + d.uniform(0, 6)) for k in range(3)),
            np.zeros(width, np.float32),
        )
        below = np.clip((rows - line[None, :]) * height + 0.5, 0, 1)[..., None]
        canvas += below * (colours[2 + index] + d.uniform(0.1, 0.5) * texture - canvas)
        level += d.uniform(0.08, 0.2)
    return canvas.astype(np.float32)


def marble(d: Draw, height: int, width: int) -> Canvas:
    """Paint veined stone."""
    x, y = axes(height, width, d.uniform(0, np.pi))
    warp = clouds(d, height, width, d.uniform(3, 6), 5, 0.55)
    veins = np.abs(np.sin(x * d.uniform(4, 10) + d.uniform(4, 9) * warp)) ** d.uniform(0.4, 1.0)
    return blend(0.8 * veins + 0.2 * warp, palette(d, 3, 0.2))


Family = Callable[[Draw, int, int], Canvas]
FAMILIES: dict[str, dict[str, Family]] = {
    "train": {f.__name__: f for f in (gradient, sky, stripe, bricks, blobs, tiles, weave)},
    "val": {f.__name__: f for f in (ripples, shingles)},
    "test": {f.__name__: f for f in (voronoi, wood, landscape, marble)},
}


def draw_background(d: Draw, height: int, width: int) -> tuple[str, Canvas]:
    """Draw a background with clutter that belongs to no class: (family's name, picture [h, w, 3] float32 in 0..1)."""
    family = d.choice(sorted(FAMILIES[d.split]))
    canvas = FAMILIES[d.split][family](d, height, width)
    canvas = np.clip(canvas, 0, 1)
    # surroundings are paler and flatter than the things in front of them
    grey = canvas.mean(axis=2, keepdims=True)
    canvas = grey + np.float32(d.uniform(0.2, 0.75)) * (canvas - grey)
    span = d.uniform(0.25, 0.65)
    low = d.uniform(0.0, 1.0) * (1 - span)
    canvas = np.ascontiguousarray(low + span * canvas, dtype=np.float32)
    for _ in range(d.integer(0, 3)):
        _add_clutter(canvas, d)
    return family, canvas


def _add_clutter(canvas: Canvas, d: Draw) -> None:
    """Draw one plain ellipse, quadrilateral or line, with a plain texture, into the picture."""
    height, width = canvas.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    size = d.log_uniform(0.06, 0.32) * min(height, width)
    x, y = float(d.rng.integers(width)), float(d.rng.integers(height))
    angle = d.uniform(0, 180)
    kind = d.choice(("ellipse", "quadrilateral", "line"))
    if kind == "ellipse":
        axis = max(2, int(size / 2)), max(2, int(size / 2 * d.uniform(0.4, 1)))
        cv2.ellipse(layer, (int(x), int(y)), axis, angle, 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == "quadrilateral":
        corners = cv2.boxPoints(((x, y), (size, size * d.uniform(0.4, 1)), angle))
        corners += (d.rng.random((4, 2)) - 0.5) * 0.3 * size
        cv2.fillPoly(layer, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    else:
        reach = 2.5 * size * np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        first, last = (int(x - reach[0]), int(y - reach[1])), (int(x + reach[0]), int(y + reach[1]))
        cv2.line(layer, first, last, 255, max(1, int(0.06 * size)), cv2.LINE_AA)
    colours = palette(d, 2, 0.15)
    left, top, w, h = cv2.boundingRect(layer)
    if not w or not h:
        return
    across, down = axes(h, w, d.uniform(0, np.pi))
    pattern = np.float32(0.5) + np.float32(0.5) * np.sin(across * np.float32(d.uniform(8, 50)))
    if d.chance(0.4):
        pattern = np.clip(across + 0.5, 0, 1)
    weight = layer[top : top + h, left : left + w, None].astype(np.float32) / np.float32(255)
    patch = canvas[top : top + h, left : left + w]
    patch += weight * (colours[0] + pattern[..., None] * (colours[1] - colours[0]) - patch)
