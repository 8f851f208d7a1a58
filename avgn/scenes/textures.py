"""Paints the textures: one function a class returns two weight images over the coordinates of its silhouette.

u, v [h, w] are unit coordinates (x right, y down), `fine` is the size of a pixel in them. The first weight mixes from
the first to the second palette colour, the second one from there to the third. Edges are one pixel soft.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw

Image = NDArray[np.float32]
Weights = tuple[Image, Image]


def above(value: Image, level: float, softness: float) -> Image:
    """Return 1 where the value exceeds the level and 0 elsewhere, with a soft edge of width `softness`."""
    result: Image = np.clip((value - np.float32(level)) / np.float32(max(softness, 1e-3)) + np.float32(0.5), 0, 1)
    return result


def wave(phase: NDArray[Any]) -> Image:
    """Return a triangle wave of period 1 between 0 and 1."""
    result: Image = np.abs(2 * (phase - np.floor(phase)) - 1).astype(np.float32)
    return result


def stripes(phase: NDArray[Any], duty: float, softness: float) -> Image:
    """Return bars of period 1 that cover the fraction `duty`."""
    return above(wave(phase), 1 - duty, 2 * softness)


def beacon(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint rings around the centre."""
    rate, duty = d.uniform(2.4, 4.2), d.uniform(0.3, 0.7)
    radius: Image = np.hypot(u, v).astype(np.float32)
    rings = stripes(radius * rate + d.uniform(0, 1), duty, rate * fine)
    return rings, above(-radius, -d.uniform(0.12, 0.3), fine)


def bell(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint level bands and a rim."""
    rate, duty = d.uniform(1.6, 3.2), d.uniform(0.3, 0.7)
    bands = stripes(v * rate + d.uniform(0, 1), duty, rate * fine)
    return bands, above(v, d.uniform(0.4, 0.64), fine)


def buzzer(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint a chequer-board."""
    rate = d.uniform(1.3, 2.4)
    turn = d.uniform(0, np.pi / 2)
    a, b = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    bias = d.uniform(-0.3, 0.3)
    board = (wave(a * rate) - 0.5) * (wave(b * rate) - 0.5)
    radius = np.hypot(u, v).astype(np.float32)
    return above(4 * board, 0.3 * bias, 4 * rate * fine), above(radius, d.uniform(0.78, 0.95), fine)


def drum(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint a zigzag around the barrel and a head of its own colour."""
    rate, height, lines, duty = d.uniform(1.6, 2.8), d.uniform(0.16, 0.3), d.uniform(1.4, 2.4), d.uniform(0.3, 0.65)
    zigzag = stripes((v + height * wave(u * rate)) * lines + d.uniform(0, 1), duty, 2 * lines * fine)
    head = ((v + d.uniform(0.52, 0.66)) / 0.22) ** 2 + (u / 0.72) ** 2
    return zigzag, above(-head.astype(np.float32), -1.0, 6 * fine)


def flute(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint finger holes along the tube, and bands at its ends."""
    rate, radius, first = d.uniform(3.2, 4.8), d.uniform(0.06, 0.085), d.uniform(-0.3, -0.1)
    phase = (u - first) * rate
    x = (phase - np.floor(phase) - 0.5) / rate
    holes = above(-np.hypot(x, v).astype(np.float32), -radius, fine) * (u > first) * (u < 0.8)
    ends = above(np.abs(u + d.uniform(-0.15, 0.15)), d.uniform(0.6, 0.86), fine)
    return ends, holes.astype(np.float32)


def harp(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint thin strings between column and sound board."""
    rate, duty = d.uniform(3.2, 5.2), d.uniform(0.25, 0.5)
    lean = d.uniform(-0.12, 0.12)
    strings = stripes((u + lean * v) * rate, duty, rate * fine)
    board = above(0.55 * u + 0.42 * v, d.uniform(0.12, 0.26), fine)
    column = above(-u, d.uniform(0.48, 0.6), fine)
    return strings, np.maximum(board, column)


def organ(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint a smooth fade along the pipes, a slanting row of dark mouths."""
    start, length = d.uniform(-0.9, -0.2), d.uniform(0.6, 1.4)
    fade: Image = np.clip((v - start) / length, 0, 1).astype(np.float32)
    mouth = np.abs(v - d.uniform(0.25, 0.4) - d.uniform(-0.1, 0.1) * u)
    return fade, above(-mouth.astype(np.float32), -d.uniform(0.06, 0.11), fine)


def phone(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint polka dots in a slanting lattice."""
    rate, radius, turn = d.uniform(3.0, 4.4), d.uniform(0.26, 0.4), d.uniform(0.2, 1.3)
    a, b = (u * np.cos(turn) + v * np.sin(turn)) * rate, (v * np.cos(turn) - u * np.sin(turn)) * rate
    a = a + 0.5 * (np.floor(b) % 2)
    distance = np.hypot(a - np.floor(a) - 0.5, b - np.floor(b) - 0.5).astype(np.float32)
    return above(-distance, -radius, rate * fine), above(np.abs(u), d.uniform(0.88, 1.0), fine)


def rattle(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint speckles on the balls, and handles of their own colour."""
    cells = d.uniform(11, 20)
    size = max(4, int(cells))
    grid = d.rng.random((size, size), dtype=np.float32)
    field: Image = cv2.remap(
        grid,
        np.ascontiguousarray((u + 1.2) / 2.4 * (size - 1), dtype=np.float32),
        np.ascontiguousarray((v + 1.2) / 2.4 * (size - 1), dtype=np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return above(field, d.uniform(0.42, 0.62), cells * fine), above(v, d.uniform(0.0, 0.2), fine)


def siren(u: Image, v: Image, fine: float, d: Draw) -> Weights:
    """Paint twisted rays and a hub."""
    rays, twist, duty = d.integer(3, 4) * 3, d.uniform(-0.6, 0.6), d.uniform(0.3, 0.7)
    radius = np.hypot(u, v).astype(np.float32)
    phase = (np.arctan2(v, u) / (2 * np.pi) * rays + twist * radius + d.uniform(0, 1)).astype(np.float32)
    softness = float(rays * fine / (2 * np.pi * 0.6))
    return stripes(phase, duty, softness), above(-radius, -d.uniform(0.16, 0.3), fine)
