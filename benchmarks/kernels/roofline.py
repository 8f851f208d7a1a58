"""Counts bytes and operations of each form from its definition, and predicts times from data sheets.

Legend: B sounds and images, N sources of a sample, P cells, C classes, D width, e bytes of an element.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from benchmarks.chips import CHIPS, Chip

BATCHES, CELLS, CLASSES = (128, 1024), (49, 196, 784), (11, 37, 221)
WIDTH, SOURCES, ELEMENT_BYTES = 512, 2, 2


def grouping_forms(b: int, p: int, c: int, d: int, e: int) -> dict[str, dict[str, float]]:
    """Count the forward of grouping attention. "naive" stores S, A, its sums and the weights; "einsum" (log domain, as
    the reference) S, log A, the weights; "fused" nothing.
    """
    ends = e * (2 * p * d + 2 * c * d)
    work = 4 * p * c * d
    return {
        "naive": {"bytes": b * (ends + e * (7 * p * c + 2 * c)), "flops": b * (work + 8 * p * c)},
        "einsum": {"bytes": b * (ends + 4 * 6 * p * c), "flops": b * (work + 10 * p * c)},
        "fused": {"bytes": b * (ends + 4 * (p + c)), "flops": b * (work + 10 * p * c)},
    }


def cosine_forms(b: int, n: int, p: int, d: int, e: int) -> dict[str, dict[str, float]]:
    """Count the forward of max-pooled cosine, M = B. "naive" stores [M,N,P,D] before and after its normalisation and
    [B,M,N,P]; "einsum" the modulated sources [B,M,N,D] and [B,M,N,P]; "fused" nothing (its repeated reads of the
    sources are served by the second-level cache and are not counted).
    """
    ends = e * (b * n * d + b * p * d + b * n * d) + 16 * b * b * n
    pairs = b * b * n
    return {
        "naive": {
            "bytes": ends + e * (4 * b * n * p * d) + 4 * 2 * pairs * p,
            "flops": 2 * pairs * p * d + 4 * b * n * p * d,
        },
        "einsum": {
            "bytes": ends + 4 * (2 * pairs * d + 4 * pairs * p + 2 * b * n * p),
            "flops": 2 * pairs * p * d + pairs * d + 2 * b * n * p * d + pairs * p,
        },
        "fused": {"bytes": ends, "flops": 4 * pairs * p * d + 3 * pairs * p},
    }


def roofline() -> list[dict[str, Any]]:
    """Predict one row for each operation, shape and form: bytes, operations and predicted microseconds on each chip."""
    rows = []
    for b, p, c in product(BATCHES, CELLS, CLASSES):
        shape = {"B": b, "N": SOURCES, "P": p, "C": c, "D": WIDTH}
        forms = {"grouping_attention": grouping_forms(b, p, c, WIDTH, ELEMENT_BYTES)}
        forms["max_pooled_cosine"] = cosine_forms(b, SOURCES, p, WIDTH, ELEMENT_BYTES)
        for operation, found in forms.items():
            for form, cost in found.items():
                predicted = {
                    name: 1e6
                    * max(cost["bytes"] / chip.memory_bytes_per_second, cost["flops"] / chip.fp16_ops_per_second)
                    for name, chip in CHIPS.items()
                }
                rows.append({"operation": operation, "form": form, "shape": shape, **cost, "predicted_us": predicted})
    return rows


def step_kernels(
    chips: Mapping[str, Chip], b: int = 128, n: int = 2, p: int = 49, c: int = 37, d: int = WIDTH
) -> list[dict[str, Any]]:
    """Predict one row for each Triton kernel of a training step in fp16: operations, least bytes, predicted
    microseconds with launch.

    Reads that the second-level cache serves again (sources and gates for every picture) are not counted.
    """
    e, pairs = ELEMENT_BYTES, b * b * n
    cells, classes, sources = b * p * d * e, b * c * d * e, b * n * d * e
    saved = 4 * b * (p + c)
    # what a backward of the cosine knows of every pair: its gradient, cosine, length (float32) and cell (int64)
    known = (4 + 4 + 4 + 8) * pairs
    grouping, cosine = grouping_forms(b, p, c, d, e)["fused"], cosine_forms(b, n, p, d, e)["fused"]
    # backward: S again, V G^T, and the gradients of Q, K and V
    rows: list[tuple[str, str, float, float]] = [
        ("grouping_attention forward", "fp16", grouping["flops"], grouping["bytes"]),
        ("grouping_attention backward", "fp16", b * (10 * p * c * d + 20 * p * c), 4 * cells + 4 * classes + saved),
        ("max_pooled_cosine forward", "fp16", cosine["flops"], cosine["bytes"]),
        # the winning cells are gathered, a row a pair: no matrix product
        ("max_pooled_cosine backward of sounds", "fp32", 5 * pairs * d, cells + 3 * sources + known),
        ("max_pooled_cosine backward of pictures", "fp16", 4 * pairs * p * d, 2 * cells + 2 * sources + known),
        ("max_pooled_cosine backward of gates", "fp16", 4 * pairs * n * d, cells + 3 * sources + known),
    ]
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
