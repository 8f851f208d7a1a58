"""The kernels compiled ahead of time for two chips, at the paper's sizes."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton has no wheel for this platform")

from avgn.kernels.launch import SHARED_MEMORY, variants
from benchmarks.kernels.resources import resources

MATRIX = {80: "HMMA", 90: "HGMMA"}


@pytest.mark.parametrize("chip", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_in_registers_and_uses_the_matrix_units(chip: int, dtype: torch.dtype) -> None:
    rows = resources(chip, dtype)
    assert len(rows) == 6
    for row in rows:
        assert row["stack"] == 0, row
        assert row["instructions"]["STL"] == row["instructions"]["LDL"] == 0, row
        assert row["shared"] <= row["shared limit"] == SHARED_MEMORY[divmod(chip, 10)], row
        # the gradient of a source gathers rows: it multiplies no matrices
        if not row["kernel"].endswith("backward_audio"):
            assert row["instructions"][MATRIX[chip]] > 0, row


@pytest.mark.parametrize("chip", [80, 90])
def test_float32_is_never_tf32(chip: int) -> None:
    for row in resources(chip, torch.float32):
        assert row["tf32"] == 0, row
        assert not any(row["instructions"][name] for name in ("HMMA", "HGMMA")), row
        assert row["stack"] <= 256, row
        assert row["shared"] <= row["shared limit"], row


def test_variants_of_a_launch_need_no_more_memory() -> None:
    plan = {"BLOCK_P": 64, "num_warps": 4, "num_stages": 3}
    found = variants(plan)
    assert found[0] == plan
    assert len(found) == 3
    assert all(one["num_stages"] <= 3 and one["BLOCK_P"] == 64 for one in found)
