"""What `make gpu` holds its measurements to."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="the kernels need PyTorch")

pytest.importorskip("lightning", reason="training needs Lightning")

from benchmarks.gpu_aoti import right
from benchmarks.kernels.gpu import GOALS, SHAPES, compare_goals
from benchmarks.training_gpu import wrong_rows


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


def test_a_training_step_whose_losses_are_others_is_wrong() -> None:
    rows: list[dict[str, Any]] = [
        {"row": "before", "first_losses": [9.0, 8.0]},
        {"row": "fused", "first_losses": [9.001, 8.01]},
        {"row": "compiled", "error": "FailureError: 3 of 5 gradients"},
        {"row": "graph", "first_losses": [9.0, float("nan")]},
    ]
    assert wrong_rows(rows[:2]) == []
    assert wrong_rows(rows) == [
        "compiled: FailureError: 3 of 5 gradients",
        "graph: losses [9.0, nan] aren't those of before",
    ]


def test_packages_whose_maps_are_others_are_wrong() -> None:
    for precision, cosine, expected in (("fp32", 1.0, True), ("fp32", 0.999, False), ("fp16", 0.999, True)):
        assert right({"precision": precision, "against_core": {"cosine_maps": cosine}}) is expected
    assert not right({"precision": "fp16", "against_core": {"cosine_maps": float("nan")}})
