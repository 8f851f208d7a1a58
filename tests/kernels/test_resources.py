"""The kernels compiled ahead of time: registers, shared memory and machine code of what a training step launches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton has no wheel for this platform")

from avgn.kernels.launch import SHARED_MEMORY
from benchmarks.kernels.resources import CHIPS, Shape, compile_one, kernels
from benchmarks.kernels.resources import resources as compile_all

MATRIX = {80: "HMMA", 90: "HGMMA"}
# the paper's sizes; scores in tiles; sources without gates; what is one is a constant to the compiler
SHAPES = [Shape(), Shape(p=784, c=221), Shape(p=196, c=0), Shape(b=1, n=1, p=1, c=1, d=16)]
MULTIPLY = ("forward_whole", "forward_rows", "forward_columns", "backward_scores", "backward_products", "forward_gated",
            "forward_plain")  # fmt: skip


@cache
def resources(chip: int, dtype: torch.dtype, shape: Shape) -> list[dict[str, Any]]:
    """What several tests look at, compiled once."""
    return compile_all(chip, dtype, shape)


@pytest.mark.parametrize("chip", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_in_registers_and_uses_the_matrix_units(chip: int, dtype: torch.dtype) -> None:
    for shape in SHAPES[:3]:
        for row in resources(chip, dtype, shape):
            assert row["stack_bytes"] == 0, row
            assert row["instructions"]["STL"] == row["instructions"]["LDL"] == 0, row
            assert row["shared_bytes"] <= row["shared_limit_bytes"] == SHARED_MEMORY[divmod(chip, 10)], row
            if row["kernel"].endswith(MULTIPLY):
                assert row["instructions"][MATRIX[chip]] > 0, row


def test_more_classes_than_a_tile_holds_stay_in_registers() -> None:
    shape, dtype = Shape(c=521), torch.float16
    ours = [(kernel, plan) for _, kernel, plan in kernels(shape, dtype, CHIPS[90]) if not plan.get("SINGLE", True)]
    assert [kernel.fn.__name__ for kernel, _ in ours] == ["backward_scores"]
    row = compile_one(ours[0][0], ours[0][1], 90, dtype, shape)
    assert row["stack_bytes"] == row["instructions"]["STL"] == 0, row


@pytest.mark.parametrize("chip", [80, 90])
def test_float32_is_never_tf32(chip: int) -> None:
    for row in resources(chip, torch.float32, SHAPES[0]):
        assert row["tf32"] == 0, row
        assert not any(row["instructions"][name] for name in ("HMMA", "HGMMA")), row
        assert row["stack_bytes"] <= 256, row
        assert row["shared_bytes"] <= row["shared_limit_bytes"], row


def check_operands() -> list[dict[str, Any]]:
    """What is wrong in the machine code for 9.0: left operands in registers, and TF32 in half precision."""
    rows = [row for dtype in (torch.float16, torch.bfloat16) for shape in SHAPES for row in resources(90, dtype, shape)]
    assert sum(row["instructions"]["HGMMA"] for row in rows) > 0
    return [row for row in rows if row["register_operands"] or row["tf32"]]


def test_no_product_of_a_warp_group_takes_its_left_operand_from_registers() -> None:
    assert check_operands() == []


def test_nor_with_another_assembler() -> None:
    """AVGN_PTXAS names ptxas programs, separated by colons: that of Triton 3.6 is of CUDA 12.8."""
    others = os.environ.get("AVGN_PTXAS")
    if not others:
        pytest.skip("AVGN_PTXAS names no other ptxas (a wheel of another Triton has one)")
    for other in others.split(os.pathsep):
        program = "import json; from tests.kernels.test_resources import check_operands as c; print(json.dumps(c()))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TRITON_PTXAS_PATH": other},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout.splitlines()[-1]) == [], other
