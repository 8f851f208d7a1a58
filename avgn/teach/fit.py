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

STEPS = 10
ENOUGH = 0.05
# the weight of all examples of one side, beside which the ridge is measured
MASS = 1000.0
# the bias is a feature of this size, which the ridge hardly holds
CONSTANT = 3.0
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


def fit(positive: Side, negative: Side, spread: Floats, ridge: float, *, left_out: bool = True) -> Fit:
    """Tell `positive` from `negative` rows; `spread` [D]: what a step of each feature is measured in.

    What each group of `positive` leaves behind when it goes follows from the solution with it: a block of the inverse
    is taken out, which is the Newton step that the others would take. Without `left_out` that is not asked for.
    """
    scaled = np.concatenate([positive.rows, negative.rows]) / spread
    rows = np.hstack([scaled, np.full((len(scaled), 1), CONSTANT, np.float32)]).astype(np.float32)
    truth = np.r_[np.ones(len(positive.rows)), np.zeros(len(negative.rows))]
    weights = MASS * np.r_[positive.weights, negative.weights].astype(np.float64)
    kernel = (rows @ rows.T).astype(np.float64)
    curve, target = _solve(kernel, truth, weights, ridge)
    damped = kernel + np.diag(ridge / curve)
    if not left_out or positive.groups.max() < 1:
        line = _line(rows, np.asarray(np.linalg.solve(damped, target), np.float64), spread)
        return Fit(line=line, without=(line,) * (int(positive.groups.max()) + 1))
    inverse = np.linalg.inv(damped)
    dual = inverse @ target
    lines = []
    for group in range(int(positive.groups.max()) + 1):
        out = np.flatnonzero(positive.groups == group)
        rest = dual - inverse[:, out] @ np.linalg.solve(inverse[np.ix_(out, out)], dual[out])
        rest[out] = 0.0
        lines.append(_line(rows, rest, spread))
    return Fit(line=_line(rows, dual, spread), without=tuple(lines))


def _solve(kernel: Double, truth: Double, weights: Double, ridge: float) -> tuple[Double, Double]:
    """Newton's steps for the ridge-penalized likelihood: curvatures [n] and targets [n] of the last one."""
    logits = np.zeros(len(truth))
    curve = target = logits
    for _ in range(STEPS):
        prob = 1 / (1 + np.exp(-np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)))
        curve = np.maximum(weights * prob * (1 - prob), LEAST_WEIGHT)
        # far from the solution a whole step overshoots
        target = np.clip(logits + weights * (truth - prob) / curve, -LARGEST_LOGIT, LARGEST_LOGIT)
        new = kernel @ np.linalg.solve(kernel + np.diag(ridge / curve), target)
        moved = float(np.abs(new - logits).max())
        logits = new
        if moved < ENOUGH:
            break
    return curve, target


def _line(rows: Floats, dual: Double, spread: Floats) -> Line:
    weight = rows.T.astype(np.float64) @ dual
    return Line(weight=(weight[:-1] / spread).astype(np.float32), bias=float(CONSTANT * weight[-1]))
