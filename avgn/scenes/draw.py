"""Draws random parameters that never coincide between splits: each split owns bands of the unit interval.

A parameter of a look, a timbre or a background is `lo + (hi - lo) * u`, where u falls into the bands of its split:

    train  [0, .22]  [.39, .61]  [.78, 1]
    test   [.25, .33]  [.67, .75]
    val    [.34, .38]  [.62, .66]

The bands are disjoint with gaps, and interleaved, so that test values lie between training values.
With `cycles` = n the whole pattern is repeated n times over the range (used for hues, which need variety).
What is no parameter but noise (grains, jitter of one onset, which of several patterns) comes from `rng` directly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from avgn.runtime.errors import InputError

T = TypeVar("T")

BANDS: dict[str, tuple[tuple[float, float], ...]] = {
    "train": ((0.0, 0.22), (0.39, 0.61), (0.78, 1.0)),
    "val": ((0.34, 0.38), (0.62, 0.66)),
    "test": ((0.25, 0.33), (0.67, 0.75)),
}
SPLITS = tuple(BANDS)


def check_split(split: str) -> None:
    """Raise InputError for a split that has no bands."""
    if split not in BANDS:
        raise InputError(f"split {split!r} is not known: use one of {', '.join(SPLITS)}")


class Draw:
    """Draws parameters for one split from one random generator."""

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        check_split(split)
        self.rng = rng
        self.split = split

    def unit(self, cycles: int = 1) -> float:
        """Return a number in [0, 1] from the bands of the split, uniform over them."""
        bands = BANDS[self.split]
        position = self.rng.random() * sum(high - low for low, high in bands)
        value = bands[-1][1]
        for low, high in bands:
            if position < high - low:
                value = low + position
                break
            position -= high - low
        if cycles == 1:
            return value
        return (int(self.rng.integers(cycles)) + value) / cycles

    def uniform(self, low: float, high: float, cycles: int = 1) -> float:
        """Return a parameter in [low, high]."""
        return low + (high - low) * self.unit(cycles)

    def log_uniform(self, low: float, high: float, cycles: int = 1) -> float:
        """Return a positive parameter in [low, high], uniform in its logarithm."""
        return math.exp(self.uniform(math.log(low), math.log(high), cycles))

    def integer(self, low: int, high: int) -> int:
        """Return a whole number in low..high, both included (discrete: shared by the splits)."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability (discrete: shared by the splits)."""
        return bool(self.rng.random() < probability)

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options (discrete: shared by the splits)."""
        return options[int(self.rng.integers(len(options)))]
