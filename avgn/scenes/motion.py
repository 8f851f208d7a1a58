"""Draws how objects of a video move and when they sound: smooth slow paths with little overlap, sounding intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.scenes.draw import Draw
from avgn.scenes.placement import MAX_HIDDEN_SHARE, paste
from avgn.scenes.synth import RATE, Wave

SOUNDING_SECONDS = (2.0, 5.0)
SILENT_SECONDS = (2.0, 4.0)
FADE_SECONDS = 0.01
COARSE_PIXELS = 8
NUM_PATHS = 24
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Path:
    """Gives the position of a sprite's top-left corner in pixels and its sway in degrees as functions of time.

    Rows of `waves` are (centre, amplitude, period in seconds, phase) of x, y and the sway.
    """

    waves: NDArray[np.float64]

    def at(self, time: float) -> tuple[float, float, float]:
        """Return (x, y, degrees) at a time in seconds."""
        centre, amplitude, period, phase = self.waves.T
        x, y, sway = centre + amplitude * np.sin(2 * np.pi * time / period + phase)
        return float(x), float(y), float(sway)


def draw_paths(
    masks: Sequence[NDArray[np.bool_]], height: int, width: int, seconds: float, d: Draw
) -> tuple[list[Path], float]:
    """Draw paths for objects, painted in this order, and return the share of time in which one of them is hidden by
    over a quarter.

    Object by object, of NUM_PATHS random paths the one is kept that hides least, of itself and of earlier objects.
    """
    coarse = [_shrink(mask) for mask in masks]
    areas = np.array([0, *(mask.sum() for mask in coarse)], np.float64)
    moments = np.arange(0, seconds, 0.5)
    owner = np.zeros((len(moments), height // COARSE_PIXELS, width // COARSE_PIXELS), np.uint8)
    paths: list[Path] = []
    for number, mask in enumerate(coarse, start=1):
        candidates = [_draw_path(masks[number - 1].shape, (height, width), d) for _ in range(NUM_PATHS)]
        costs = [_cost(owner, mask, path, areas, moments) for path in candidates]
        paths.append(candidates[int(np.argmin(costs))])
        for moment, time in enumerate(moments):
            _draw_coarse(owner[moment], mask, paths[-1], time, number)
    seen = np.stack([np.bincount(at.ravel(), minlength=len(areas)) for at in owner])
    crowded = (seen[:, 1:] < (1 - MAX_HIDDEN_SHARE) * areas[1:]).any(axis=1)
    return paths, float(crowded.mean())


def draw_intervals(seconds: float, d: Draw) -> tuple[Interval, ...]:
    """Draw when a source sounds: intervals of 2-5 s with gaps of 2-4 s (at least one, cut by the end of a short
    video)."""
    intervals: list[Interval] = []
    start = float(d.rng.uniform(0, min(2.0, max(0.0, seconds - SOUNDING_SECONDS[0]))))
    while start < seconds:
        end = min(start + float(d.rng.uniform(*SOUNDING_SECONDS)), float(seconds))
        if not intervals or end - start >= SOUNDING_SECONDS[0]:
            intervals.append((round(start, 3), round(end, 3)))
        start = end + float(d.rng.uniform(*SILENT_SECONDS))
    return tuple(intervals)


def gate(waveform: Wave, intervals: Sequence[Interval]) -> Wave:
    """Keep a sound inside intervals (seconds), with fades of 10 ms inside their ends."""
    envelope = np.zeros(len(waveform), np.float32)
    for start, end in intervals:
        first, last = round(start * RATE), min(round(end * RATE), len(waveform))
        distance = np.minimum(np.arange(last - first), np.arange(last - first)[::-1]).astype(np.float32)
        envelope[first:last] = np.minimum(distance / np.float32(FADE_SECONDS * RATE), 1)
    return waveform * envelope


def _draw_path(sprite: tuple[int, ...], frame_size: tuple[int, int], d: Draw) -> Path:
    rows = []
    for frame, size in zip(frame_size[::-1], sprite[::-1], strict=True):
        low, high = sorted((-0.03 * size, frame - 0.97 * size))
        amplitude = min(float(d.rng.uniform(0.04, 0.2)) * frame, (high - low) / 2)
        centre = low + amplitude + (high - low - 2 * amplitude) * float(d.rng.random())
        rows.append((centre, amplitude, float(d.rng.uniform(8, 20)), float(d.rng.uniform(0, 2 * np.pi))))
    rows.append((0.0, float(d.rng.uniform(0, 6)), float(d.rng.uniform(4, 10)), float(d.rng.uniform(0, 2 * np.pi))))
    return Path(waves=np.array(rows))


def _shrink(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    h, w = mask.shape
    small = cv2.resize(
        mask.astype(np.uint8) * 255, (max(1, w // COARSE_PIXELS), max(1, h // COARSE_PIXELS)), None, 0, 0, 3
    )
    result: NDArray[np.bool_] = small >= 128
    return result


def _cost(
    owner: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    path: Path,
    areas: NDArray[np.float64],
    moments: NDArray[np.float64],
) -> float:
    """Return how much a path hides: shares of objects beyond a quarter weigh ten times as much as those below."""
    rows, columns = owner.shape[1:]
    hidden = 0.0
    for moment, time in enumerate(moments):
        x, y, _ = path.at(time)
        frame, local = paste(mask, round(x / COARSE_PIXELS), round(y / COARSE_PIXELS), rows, columns)
        inside = mask[local]
        lost = np.bincount(owner[moment][frame][inside], minlength=len(areas)) / np.maximum(areas, 1)
        shares = np.append(lost[1:], 1 - inside.sum() / mask.sum())
        hidden += float(shares.sum() + 10 * np.maximum(shares - MAX_HIDDEN_SHARE / 2, 0).sum())
    return hidden


def _draw_coarse(owner: NDArray[np.uint8], mask: NDArray[np.bool_], path: Path, time: float, number: int) -> None:
    x, y, _ = path.at(time)
    frame, local = paste(mask, round(x / COARSE_PIXELS), round(y / COARSE_PIXELS), *owner.shape)
    owner[frame][mask[local]] = number
