"""Counts bytes and operations of each form from its definition, and predicts times from data sheets.

Legend: B sounds and images, N sources of a sample, P cells, C classes, D width, e bytes of an element.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from avgn.kernels.grouping_attention.plan import fits_whole
from avgn.kernels.launch import ceil_div
from benchmarks.chips import CHIPS, Chip

BATCHES, CELLS, CLASSES = (128, 1024), (49, 196, 784), (11, 37, 221)
WIDTH, SOURCES, ELEMENT_BYTES = 512, 2, 2


def grouping_forms(b: int, p: int, c: int, d: int, e: int) -> dict[str, dict[str, float]]:
    """Count the forward of grouping attention. "naive" stores S, A, its sums and the weights; "einsum" (log domain, as
    the reference) S, log A, the weights; "fused" nothing, or S and the weights where a sample doesn't fit one program.
    """
    ends = e * (2 * p * d + 2 * c * d)
    work = 4 * p * c * d
    between = 0 if fits_whole(p, c) else 2 * (4 + e) * p * c
    return {
        "naive": {"bytes": b * (ends + e * (7 * p * c + 2 * c)), "flops": b * (work + 8 * p * c)},
        "einsum": {"bytes": b * (ends + 4 * 6 * p * c), "flops": b * (work + 10 * p * c)},
        "fused": {"bytes": b * (ends + 4 * (p + c) + between), "flops": b * (work + 10 * p * c)},
    }


def cosine_forms(b: int, n: int, p: int, d: int, e: int, c: int) -> dict[str, dict[str, float]]:
    """Count the forward of max-pooled cosine, M = B, with C gates an image (0: none). "naive" stores [M,N,P,D] before
    and after its normalisation and [B,M,N,P]; "einsum" the modulated sources [B,M,N,D] and [B,M,N,P]; "fused" unit
    sources and gates and the inverse lengths of gated cells (its repeated reads of the sources are served by the
    second-level cache and are not counted).
    """
    ends = e * (b * n * d + b * p * d + b * c * d) + 16 * b * b * n
    pairs = b * b * n
    prepared = 2 * (e * b * (n + c) * d + 4 * b * max(c, 1) * p)
    return {
        "naive": {
            "bytes": ends + e * (4 * b * n * p * d) + 4 * 2 * pairs * p,
            "flops": 2 * pairs * p * d + 4 * b * n * p * d,
        },
        "einsum": {
            "bytes": ends + 4 * (2 * pairs * d + 4 * pairs * p + 2 * b * n * p),
            "flops": 2 * pairs * p * d + pairs * d + 2 * b * n * p * d + pairs * p,
        },
        "fused": {
            "bytes": ends + prepared,
            "flops": 2 * pairs * p * d + pairs * p + (pairs * d if c else 0) + _squares(b, p, c, d),
        },
    }


def _squares(b: int, p: int, c: int, d: int) -> float:
    """Count the operations of the lengths of cells: with gates four products of half-precision parts."""
    return 4 * 2 * b * c * p * d if c else 2 * b * p * d


def roofline() -> list[dict[str, Any]]:
    """Predict one row for each operation, shape and form: bytes, operations and predicted microseconds on each chip."""
    rows = []
    for b, p, c in product(BATCHES, CELLS, CLASSES):
        shape = {"B": b, "N": SOURCES, "P": p, "C": c, "D": WIDTH}
        forms = {"grouping_attention": grouping_forms(b, p, c, WIDTH, ELEMENT_BYTES)}
        forms["max_pooled_cosine"] = cosine_forms(b, SOURCES, p, WIDTH, ELEMENT_BYTES, c)
        for operation, found in forms.items():
            for form, cost in found.items():
                predicted = {
                    name: 1e6
                    * max(cost["bytes"] / chip.memory_bytes_per_second, cost["flops"] / chip.fp16_ops_per_second)
                    for name, chip in CHIPS.items()
                }
                rows.append({"operation": operation, "form": form, "shape": shape, **cost, "predicted_us": predicted})
    return rows


def predict_kernels(
    chips: Mapping[str, Chip], b: int = 128, n: int = 2, p: int = 49, c: int = 37, d: int = WIDTH
) -> list[dict[str, Any]]:
    """Predict one row for each launch of a call with its backward in fp16: operations, least bytes, predicted
    microseconds with the launch. Without classes (C = 0) that is max-pooled cosine alone, without gates.

    Reads that the second-level cache serves again (sources and gates for every picture) are not counted.
    """
    rows = (_grouping_launches(b, p, c, d) if c else []) + _cosine_launches(b, n, p, c, d)
    return [
        {
            "kernel": name,
            "shape": {"B": b, "N": n, "P": p, "C": c, "D": d},
            "operations": operations,
            "bytes": moved,
            "predicted_us": {
                chip: round(
                    1e6
                    * (
                        max(operations / facts.rate(precision), moved / facts.memory_bytes_per_second)
                        + facts.gap_seconds
                    ),
                    1,
                )
                for chip, facts in chips.items()
            },
        }
        for name, precision, operations, moved in rows
    ]


Launch = tuple[str, str, float, float]


def _grouping_launches(b: int, p: int, c: int, d: int) -> list[Launch]:
    e = ELEMENT_BYTES
    cells, classes = b * p * d * e, b * c * d * e
    # w and dS of the backward, and what the forward saved
    weights, saved = 2 * e * b * p * c, 4 * b * (p + c)
    fused = grouping_forms(b, p, c, d, e)["fused"]
    # S again and V G^T, then the gradients of Q, K and V
    return [
        ("grouping_attention forward", "fp16", fused["flops"], fused["bytes"]),
        (
            "grouping_attention backward: scores",
            "fp16",
            b * (4 * p * c * d + 20 * p * c),
            2 * cells + 3 * classes + saved + weights,
        ),
        ("grouping_attention backward: products", "fp16", 6 * b * p * c * d, 3 * cells + 3 * classes + weights),
    ]


def _cosine_launches(b: int, n: int, p: int, c: int, d: int) -> list[Launch]:
    e, pairs = ELEMENT_BYTES, b * b * n
    cells, gates, sources, lengths = b * p * d * e, b * c * d * e, b * n * d * e, 4 * b * max(c, 1) * p
    # gradient, cosine and inverse length of a pair (float32), its winning cell (int64)
    known = (4 + 4 + 4 + 8) * pairs
    order = 8 * pairs + 4 * pairs
    multiply = 2 * pairs * p * d + pairs * p + (pairs * d if c else 0)
    end = 12 * pairs
    rows: list[Launch] = [
        (
            "max_pooled_cosine forward: lengths",
            "fp16" if c else "fp32",
            _squares(b, p, c, d) + 3 * b * (n + c) * d,
            cells + 2 * sources + 2 * gates + lengths,
        ),
        ("max_pooled_cosine forward: products", "fp16", multiply, cells + sources + gates + lengths + end),
    ]
    if not c:
        # two numbers a block of cells and pair
        blocks = 8 * pairs * ceil_div(p, 128)
        rows.append(("max_pooled_cosine forward: best block", "fp32", pairs, blocks + end))
    # rows of the winning cells are gathered, a row a pair: no matrix product
    gather = (5 if c else 3) * pairs * d
    rows += [
        ("max_pooled_cosine backward of sounds", "fp32", gather, cells + 2 * sources + gates + known),
        ("max_pooled_cosine backward: order", "fp32", pairs, order),
        ("max_pooled_cosine backward of pictures", "fp32", gather, 2 * cells + sources + gates + known),
    ]
    if c:
        rows += [
            ("max_pooled_cosine backward: order of gates", "fp32", b * n, 16 * b * n),
            ("max_pooled_cosine backward of gates", "fp32", gather, cells + sources + 2 * gates + known),
        ]
    return rows
