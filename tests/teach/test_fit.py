"""The regression against a plain one, and what an example leaves behind against a fit without it."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.teach.fit import CONSTANT, MASS, Line, fit, side

WIDTH = 40
RIDGE = 30.0


def drawn(seed: int, groups: int, shift: float) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        (random.standard_normal((5, WIDTH)) + shift * np.r_[1, np.zeros(WIDTH - 1)]).astype(np.float32)
        for _ in range(groups)
    ]


def slow(positive: list[np.ndarray], negative: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Gradient descent in float64 on the same likelihood."""
    rows = np.concatenate([*positive, *negative]).astype(np.float64)
    rows = np.hstack([rows, np.full((len(rows), 1), CONSTANT)])
    count = sum(map(len, positive))
    truth = np.r_[np.ones(count), np.zeros(len(rows) - count)]
    weights = MASS * np.r_[np.full(count, 1 / count), np.full(len(rows) - count, 1 / (len(rows) - count))]
    solution = np.zeros(WIDTH + 1)
    for _ in range(200):
        prob = 1 / (1 + np.exp(-rows @ solution))
        gradient = rows.T @ (weights * (truth - prob)) - RIDGE * solution
        hessian = rows.T @ (rows * (weights * prob * (1 - prob))[:, None]) + RIDGE * np.eye(WIDTH + 1)
        solution += np.linalg.solve(hessian, gradient)
    return solution[:-1], float(CONSTANT * solution[-1])


def test_it_is_the_likelihoods_maximum() -> None:
    positive, negative = drawn(0, 8, 1.5), drawn(1, 20, 0.0)
    found = fit(side(positive), side(negative), np.ones(WIDTH, np.float32), RIDGE)
    weight, bias = slow(positive, negative)
    np.testing.assert_allclose(found.line.weight, weight, atol=0.02)
    assert found.line.bias == pytest.approx(bias, abs=0.05)


def test_a_line_without_an_example_is_near_the_fit_that_never_met_it() -> None:
    positive, negative = drawn(2, 6, 1.5), drawn(3, 20, 0.0)
    found = fit(side(positive), side(negative), np.ones(WIDTH, np.float32), RIDGE)
    for out in range(len(positive)):
        rest = positive[:out] + positive[out + 1 :]
        again = fit(side(rest), side(negative), np.ones(WIDTH, np.float32), RIDGE).line
        one, other, with_it = (line(positive[out]).mean() for line in (found.without[out], again, found.line))
        # most of what the example itself had pulled up is gone
        assert abs(one - other) < 0.35 * abs(with_it - other) + 0.1


def test_one_example_is_enough_and_nothing_is_left_without_it() -> None:
    found = fit(side(drawn(4, 1, 2.0)), side(drawn(5, 10, 0.0)), np.ones(WIDTH, np.float32), RIDGE)
    assert found.without == (found.line,)
    assert found.line(drawn(6, 1, 2.0)[0]).mean() > found.line(drawn(7, 1, 0.0)[0]).mean()


def test_a_stretched_line_gives_stretched_logits() -> None:
    line = Line(weight=np.array([0.5, -2.0], np.float32), bias=3.0)
    features = np.array([[1.0, 2.0], [0.0, 0.0], [-4.0, 1.0]], np.float32)
    np.testing.assert_allclose(line.stretched(2.5, -7.0)(features), 2.5 * line(features) - 7.0, rtol=1e-6)
