"""What the record of `make gpu` says of the goals of the kernels."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="the kernels need PyTorch")

from benchmarks.kernels.gpu import GOALS, SHAPES, compare_goals


def test_goals_are_compared_with_what_was_measured() -> None:
    shape = (256, 2, 196, 512, 0)
    fused = {"forward_us": 100.0, "both_us": 300.0, "forward_host_us": 39.0}
    row = {"shape": shape, "fused": fused, "ratios": {"naive": {"forward_us": 2.1, "both_us": 1.4}}}
    rows: list[dict[str, Any]] = [
        row,
        {"shape": (32, 784, 221, 512), "left_out": "the 80 s are over"},
        {"shape": (1, 2), "error": "wrong"},
    ]
    assert [(one["found"], one["met"]) for one in compare_goals(rows)] == [(2.1, True), (1.4, False), (39.0, True)]


def test_every_goal_is_of_a_shape_that_is_measured() -> None:
    assert {goal[0] for goal in GOALS} <= set(SHAPES)
