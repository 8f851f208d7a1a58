"""How things of a video move and when they sound: smooth slow paths without much overlap, sounding intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw
from avgn.scenes.placement import MAX_HIDDEN, paste
from avgn.scenes.synth import RATE, Wave

SOUNDING = (2.0, 5.0)
SILENT = (2.0, 4.0)
FADE = 0.01
COARSE = 8
TRIES = 60
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Path:
    """Position of a sprite's top-left corner in pixels and its sway in degrees as functions of time.

    Rows of `waves` are (centre, amplitude, period in seconds, phase) of x, y and the sway.
    """

    waves: NDArray[np.float64]

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, y, degrees) at a time in seconds."""
        centre, amplitude, period, phase = self.waves.T
        x, y, sway = centre + amplitude * np.sin(2 * np.pi * time / period + phase)
        return float(x), float(y), float(sway)


def draw_paths(
    masks: Sequence[NDArray[np.bool_]], height: int, width: int, seconds: float, d: Draw
) -> tuple[list[Path], float]:
    """Paths for objects drawn in this order and the share of time at which one of them is hidden by over a quarter.

    Of many random sets of paths the one with the least such time is kept.
    """
    coarse = [_shrink(mask) for mask in masks]
    moments = np.arange(0, seconds, 0.4)
    best: list[Path] = []
    best_share = math.inf
    for _ in range(TRIES):
        paths = [_draw_path(mask.shape[0], mask.shape[1], height, width, d) for mask in masks]
        share = float(np.mean([_crowded(coarse, paths, height, width, time) for time in moments]))
        if share < best_share:
            best, best_share = paths, share
        if share == 0:
            break
    return best, best_share


def draw_intervals(seconds: float, d: Draw) -> tuple[Interval, ...]:
    """When a source sounds: intervals of 2-5 s with gaps of 2-4 s (at least one, cut by the end of a short video)."""
    intervals: list[Interval] = []
    start = float(d.rng.uniform(0, min(2.0, max(0.0, seconds - SOUNDING[0]))))
    while start < seconds:
        end = min(start + float(d.rng.uniform(*SOUNDING)), seconds)
        if not intervals or end - start >= SOUNDING[0]:
            intervals.append((round(start, 3), round(end, 3)))
        start = end + float(d.rng.uniform(*SILENT))
    return tuple(intervals)


def gate(sound: Wave, intervals: Sequence[Interval]) -> Wave:
    """Keep a sound inside intervals (seconds), with fades of 10 ms inside their ends."""
    envelope = np.zeros(len(sound), np.float32)
    for start, end in intervals:
        first, last = round(start * RATE), min(round(end * RATE), len(sound))
        distance = np.minimum(np.arange(last - first), np.arange(last - first)[::-1]).astype(np.float32)
        envelope[first:last] = np.minimum(distance / np.float32(FADE * RATE), 1)
    return sound * envelope


def _draw_path(h: int, w: int, height: int, width: int, d: Draw) -> Path:
    rows = []
    for frame, size in ((width, w), (height, h)):
        low, high = sorted((-0.03 * size, frame - 0.97 * size))
        amplitude = min(float(d.rng.uniform(0.04, 0.2)) * frame, (high - low) / 2)
        centre = low + amplitude + (high - low - 2 * amplitude) * float(d.rng.random())
        rows.append((centre, amplitude, float(d.rng.uniform(8, 20)), float(d.rng.uniform(0, 2 * np.pi))))
    rows.append((0.0, float(d.rng.uniform(0, 6)), float(d.rng.uniform(4, 10)), float(d.rng.uniform(0, 2 * np.pi))))
    return Path(waves=np.array(rows))


def _shrink(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    h, w = mask.shape
    small = cv2.resize(mask.astype(np.uint8) * 255, (max(1, w // COARSE), max(1, h // COARSE)), None, 0, 0, 3)
    result: NDArray[np.bool_] = small >= 128
    return result


def _crowded(masks: Sequence[NDArray[np.bool_]], paths: Sequence[Path], height: int, width: int, time: float) -> bool:
    """Whether at this time more than a quarter of any object is covered or outside."""
    rows, columns = height // COARSE, width // COARSE
    owner = np.zeros((rows, columns), np.uint8)
    for index, (mask, path) in enumerate(zip(masks, paths, strict=True)):
        x, y, _ = path.at(time)
        frame, local = paste(mask, round(x / COARSE), round(y / COARSE), rows, columns)
        owner[frame][mask[local]] = index + 1
    seen = np.bincount(owner.ravel(), minlength=len(masks) + 1)[1:]
    return any(count < (1 - MAX_HIDDEN) * mask.sum() for count, mask in zip(seen, masks, strict=True))
