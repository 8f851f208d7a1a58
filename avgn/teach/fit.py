"""Rows from examples: logistic regression on frozen features, with a ridge, and each example left out in turn.

Few examples stand against many features, so everything is solved in the space of the examples: a kernel of their
products, some Newton steps. The ridge is measured in standard deviations of what other things give.

Legend: n rows of features, D their width, G groups: the rows of one example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.arrays import Floats

Double = NDArray[np.float64]

STEPS, AGAIN = 12, 4
ENOUGH = 1e-2
# the weight of all examples of one side, beside which the ridge is measured
MASS = 1000.0
# the bias is a feature of this size, which the ridge hardly holds
CONSTANT = 3.0
# examples are left out one by one up to this number, in as many parts beyond it
FOLDS = 10
LARGEST_LOGIT = 30.0
LEAST_WEIGHT = 1e-7


@dataclass(frozen=True, kw_only=True)
class Side:
    """Rows [n, D] with weights [n], and the group of each [n]; weights of a side add up to one."""

    rows: Floats
    weights: Floats
    groups: NDArray[np.int64]


def side(parts: Sequence[Floats]) -> Side:
    """One group of rows for each part, all groups of the same weight."""
    return Side(
        rows=np.concatenate(parts),
        weights=np.concatenate([np.full(len(part), 1 / (len(part) * len(parts)), np.float32) for part in parts]),
        groups=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row [D] with its bias: logits are rows of features times it."""

    weight: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        return np.asarray(features @ self.weight + self.bias, np.float32)

    def stretched(self, scale: float, shift: float) -> Line:
        """logit -> scale * logit + shift."""
        return Line(weight=(scale * self.weight).astype(np.float32), bias=scale * self.bias + shift)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The line of all examples, and for each example the one that never met it."""

    line: Line
    without: tuple[Line, ...]


def fit(positive: Side, negative: Side, spread: Floats, ridge: float) -> Fit:
    """Tell `positive` from `negative` rows; `spread` [D]: what a step of each feature is measured in."""
    scaled = np.concatenate([positive.rows, negative.rows]) / spread
    rows = np.hstack([scaled, np.full((len(scaled), 1), CONSTANT, np.float32)]).astype(np.float32)
    truth = np.r_[np.ones(len(positive.rows)), np.zeros(len(negative.rows))]
    weights = MASS * np.r_[positive.weights, negative.weights].astype(np.float64)
    kernel = (rows @ rows.T).astype(np.float64)
    logits = _solve(kernel, truth, weights, ridge, np.zeros(len(rows)), STEPS)[1]
    whole = _line(rows, _solve(kernel, truth, weights, ridge, logits, 1)[0], spread)
    count = int(positive.groups.max()) + 1
    lines: list[Line] = [whole] * count
    if count > 1:
        for fold in _folds(count):
            out = np.isin(positive.groups, fold)
            kept = np.r_[~out, np.ones(len(negative.rows), bool)]
            left = weights.copy()
            # the others take over its weight
            left[: len(out)] *= 1 / max(1e-6, 1 - float(positive.weights[out].sum()))
            dual = _solve(
                kernel[np.ix_(kept, kept)], truth[kept], left[kept], ridge, np.clip(logits[kept], -4, 4), AGAIN
            )[0]
            line = _line(rows[kept], dual, spread)
            for group in fold:
                lines[group] = line
    return Fit(line=whole, without=tuple(lines))


def _folds(count: int) -> list[list[int]]:
    parts = min(count, FOLDS)
    return [list(range(first, count, parts)) for first in range(parts)]


def _solve(
    kernel: Double, truth: Double, weights: Double, ridge: float, logits: Double, steps: int
) -> tuple[Double, Double]:
    """Newton's steps for the ridge-penalized likelihood: the examples' coefficients [n] and logits [n]."""
    dual = np.zeros(len(logits))
    for _ in range(steps):
        prob = 1 / (1 + np.exp(-np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)))
        curve = np.maximum(weights * prob * (1 - prob), LEAST_WEIGHT)
        target = logits + weights * (truth - prob) / curve
        # far from the solution a whole step overshoots
        target = np.clip(target, -LARGEST_LOGIT, LARGEST_LOGIT)
        dual = np.linalg.solve(kernel + np.diag(ridge / curve), target)
        new = kernel @ dual
        moved = float(np.abs(new - logits).max())
        logits = new
        if moved < ENOUGH:
            break
    return dual, logits


def _line(rows: Floats, dual: Double, spread: Floats) -> Line:
    weight = rows.T.astype(np.float64) @ dual
    return Line(weight=(weight[:-1] / spread).astype(np.float32), bias=float(CONSTANT * weight[-1]))
