"""Block sizes of the grouping-attention kernels for a shape, a dtype and a chip.

Legend: P cells, C classes, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from avgn.kernels.launch import block

WHOLE_ELEMENTS = 16_384


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`whole`: one program a sample. Otherwise `cells`, `classes` are tiles and `out` the columns of an accumulator."""

    whole: bool
    cells: int
    classes: int
    inner: int
    out: int
    warps: int
    stages: int


def plan_forward(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> Plan:
    """The forward blocks that fit `shared` bytes of shared memory."""
    return _plan(cells, classes, width, dtype, shared, tile=(32, 128), out=256)


def plan_backward(cells: int, classes: int, width: int, dtype: torch.dtype, shared: int) -> Plan:
    """The backward blocks; they hold two tiles of S more than the forward."""
    return _plan(cells, classes, width, dtype, shared, tile=(64, 64), out=64)


def _plan(
    cells: int, classes: int, width: int, dtype: torch.dtype, shared: int, *, tile: tuple[int, int], out: int
) -> Plan:
    size = 4 if dtype == torch.float32 else 2
    whole_cells, whole_classes = block(cells), block(classes)
    whole = whole_cells * whole_classes <= WHOLE_ELEMENTS
    high, wide = (whole_cells, whole_classes) if whole else (min(tile[0], whole_cells), min(tile[1], whole_classes))
    inner = min(block(width), 64 if size == 2 else 16)
    stages = 3
    while stages * (high + wide) * inner * size > shared * 3 // 4 and (stages > 1 or inner > 16):
        if stages > 1:
            stages -= 1
        else:
            inner //= 2
    return Plan(
        whole=whole,
        cells=high,
        classes=wide,
        inner=inner,
        out=block(width, most=out),
        warps=4 if high * wide <= 4096 and size == 2 else 8,
        stages=stages,
    )
