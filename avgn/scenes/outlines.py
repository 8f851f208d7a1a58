"""Outlines the silhouettes: one function a class returns polygons in unit coordinates (x right, y down, about -1..1).

A silhouette is a list of parts (points [N, 2], filled); later parts are added to (True) or cut out of (False) it. They
are solid round their middle: where an object is should be a place on the object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw

Points = NDArray[np.float64]
Outline = list[tuple[Points, bool]]


def ellipse(x: float, y: float, width: float, height: float, turn: float = 0.0, num: int = 40) -> Points:
    """Outline an ellipse around (x, y) by `num` points, in unit coordinates: [num, 2].

    width, height: the half axes. turn: the rotation in radians.
    """
    angle = np.linspace(0, 2 * np.pi, num, endpoint=False)
    px, py = width * np.cos(angle), height * np.sin(angle)
    return np.stack([x + px * np.cos(turn) - py * np.sin(turn), y + px * np.sin(turn) + py * np.cos(turn)], axis=1)


def box(x1: float, y1: float, x2: float, y2: float) -> Points:
    """Outline a rectangle: [4, 2]."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def beacon(d: Draw) -> Outline:
    """Outline a star with five points."""
    inner = d.uniform(0.4, 0.56)
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    return [(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), True)]


def bell(d: Draw) -> Outline:
    """Outline a bell: dome, flare, knob and clapper."""
    shoulder, flare, clapper = d.uniform(0.38, 0.52), d.uniform(0.28, 0.46), d.uniform(0.15, 0.22)
    t = np.linspace(0, 1, 24)
    dome = np.sqrt(1 - (1 - np.minimum(t / 0.35, 1)) ** 2)
    width = shoulder * dome + flare * (np.maximum(t - 0.35, 0) / 0.65) ** 2.2
    y = -0.85 + 1.5 * t
    profile = np.concatenate([np.stack([width, y], axis=1), np.stack([-width, y], axis=1)[::-1]])
    return [
        (profile, True),
        (ellipse(0, -0.9, 0.14, 0.14), True),
        (ellipse(0, 0.65 + 0.4 * clapper, clapper, clapper), True),
    ]


def buzzer(d: Draw) -> Outline:
    """Outline a gear."""
    teeth, root = d.integer(8, 11), d.uniform(0.68, 0.8)
    slope = d.uniform(0.02, 0.1)
    steps = np.array([slope, 0.5 - slope, 0.5 + slope, 1 - slope])
    angle = ((np.arange(teeth)[:, None] + steps) * 2 * np.pi / teeth).ravel()
    radius = np.tile([1.0, 1.0, root, root], teeth)
    rim = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return [(rim, True)]


def drum(d: Draw) -> Outline:
    """Outline a drum: a waisted or bulging barrel between two ellipses."""
    width, height, depth = d.uniform(0.68, 0.9), d.uniform(0.5, 0.68), d.uniform(0.18, 0.28)
    bulge = d.uniform(-0.16, 0.12)
    t = np.linspace(-1, 1, 16)
    side = width + bulge * (1 - t**2)
    barrel = np.concatenate([np.stack([side, height * t], axis=1), np.stack([-side, height * t], axis=1)[::-1]])
    return [
        (barrel, True),
        (ellipse(0, -height, width, depth), True),
        (ellipse(0, height, width, depth), True),
    ]


def flute(d: Draw) -> Outline:
    """Outline a long thin tube with a collar and a wider foot."""
    half, collar, foot = d.uniform(0.16, 0.2), d.uniform(-0.6, -0.35), d.uniform(1.1, 1.4)
    body = np.array([[-1, -half], [0.8, -half], [1, -half * foot], [1, half * foot], [0.8, half], [-1, half]])
    return [
        (body, True),
        (ellipse(-1, 0, 0.09, half), True),
        (box(collar - 0.08, -half * 1.35, collar + 0.08, half * 1.35), True),
    ]


def harp(d: Draw) -> Outline:
    """Outline a harp: straight column, curved neck, slanting sound board."""
    sag, reach, foot = d.uniform(0.14, 0.34), d.uniform(0.7, 0.95), d.uniform(0.1, 0.3)
    t = np.linspace(0, 1, 16)
    neck = np.stack([-0.7 + (reach + 0.7) * t, -0.9 + 0.35 * t + sag * np.sin(np.pi * t)], axis=1)
    rest = np.array([[reach + 0.12, -0.42], [-0.35 + foot, 0.95], [-0.8, 0.95], [-0.7, 0.8]])
    return [
        (np.concatenate([neck, rest]), True),
        (ellipse(reach + 0.02, -0.52, 0.15, 0.15), True),
        (ellipse(-0.66, -0.9, 0.13, 0.13), True),
    ]


def organ(d: Draw) -> Outline:
    """Outline a row of pipes of falling height on a base."""
    num, gap, fall, base = d.integer(4, 5), d.uniform(0.12, 0.24), d.uniform(0.6, 1.1), d.uniform(0.2, 0.32)
    pitch = 1.8 / num
    parts: Outline = [(box(-0.98, 0.92 - base, 0.98, 0.92), True)]
    for index in range(num):
        x = -0.9 + pitch * (index + 0.5)
        half = 0.5 * pitch * (1 - gap)
        top = -0.95 + fall * index / (num - 1)
        tip = np.array([[x - half, 0.8], [x - half, top], [x - 0.4 * half, top - 0.1]])
        mirrored = tip[::-1] * [-1, 1] + [2 * x, 0]
        parts.append((np.concatenate([tip, mirrored]), True))
    return parts


def phone(d: Draw) -> Outline:
    """Outline a telephone handset: a bow between two blocks."""
    thick, spread, bend = d.uniform(0.42, 0.52), d.uniform(0.28, 0.36), d.uniform(0.16, 0.32)
    t = np.linspace(-1, 1, 24)
    middle = np.stack([0.8 * t, -bend * np.cos(t * np.pi / 2)], axis=1)
    outer, inner = middle - [0, thick / 2], middle + [0, thick / 2]
    tilt = 0.35
    return [
        (np.concatenate([outer, inner[::-1]]), True),
        (ellipse(-0.78, 0.08, spread, spread * 0.75, -tilt), True),
        (ellipse(0.78, 0.08, spread, spread * 0.75, tilt), True),
    ]


def rattle(d: Draw) -> Outline:
    """Outline a pair of balls that touch, on handles that meet in a knob."""
    ball, handle, spread = d.uniform(0.42, 0.5), d.uniform(0.15, 0.2), d.uniform(0.32, 0.4)
    parts: Outline = []
    for side in (-1, 1):
        x, y = side * spread, -0.45
        normal = np.array([1.4, side * spread]) / np.hypot(1.4, spread) * handle
        ends = np.array([[x, y], [0.0, 0.9]])
        parts.append((np.concatenate([ends + normal, (ends - normal)[::-1]]), True))
        parts.append((ellipse(x, y, ball, ball * 1.1), True))
    return [*parts, (ellipse(0, 0.88, 0.2, 0.16), True)]


def siren(d: Draw) -> Outline:
    """Outline a propeller with three blades."""
    blade, twist, hub = d.uniform(0.28, 0.36), d.uniform(0.1, 0.45), d.uniform(0.26, 0.34)
    parts: Outline = []
    for index in range(3):
        angle = -np.pi / 2 + index * 2 * np.pi / 3
        parts.append((ellipse(0.58 * np.cos(angle), 0.58 * np.sin(angle), 0.46, blade, angle + twist), True))
    return [*parts, (ellipse(0, 0, hub, hub), True)]
