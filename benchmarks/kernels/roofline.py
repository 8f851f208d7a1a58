"""Bytes and operations of each form, counted from its definition, and what data sheets predict from them.

Legend: B sounds and images, N sources of a sample, P cells, C classes, D width, e bytes of an element.
"""

from __future__ import annotations

from itertools import product
from typing import Any

BATCHES, CELLS, CLASSES = (128, 1024), (49, 196, 784), (11, 37, 221)
WIDTH, SOURCES, ELEMENT = 512, 2, 2
# memory bytes a second, dense fp16 operations a second (data sheets)
CHIPS = {"A100 80GB": (2.04e12, 312e12), "H100 SXM": (3.35e12, 989e12), "RTX 4090": (1.01e12, 165e12)}


def grouping_forms(b: int, p: int, c: int, d: int, e: int) -> dict[str, dict[str, float]]:
    """Forward of grouping attention. "naive" stores S, A, its sums and the weights; "einsum" (log domain, as the
    reference) S, log A, the weights; "fused" nothing.
    """
    ends = e * (2 * p * d + 2 * c * d)
    work = 4 * p * c * d
    return {
        "naive": {"bytes": b * (ends + e * (7 * p * c + 2 * c)), "flops": b * (work + 8 * p * c)},
        "einsum": {"bytes": b * (ends + 4 * 6 * p * c), "flops": b * (work + 10 * p * c)},
        "fused": {"bytes": b * (ends + 4 * (p + c)), "flops": b * (work + 10 * p * c)},
    }


def cosine_forms(b: int, n: int, p: int, d: int, e: int) -> dict[str, dict[str, float]]:
    """Forward of max-pooled cosine, M = B. "naive" stores [M,N,P,D] before and after its normalisation and [B,M,N,P];
    "einsum" the modulated sources [B,M,N,D] and [B,M,N,P]; "fused" nothing (its repeated reads of the sources are
    served by the second-level cache and are not counted).
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
    """One row an operation, shape and form: bytes, operations and predicted microseconds on each chip."""
    rows = []
    for b, p, c in product(BATCHES, CELLS, CLASSES):
        shape = {"B": b, "N": SOURCES, "P": p, "C": c, "D": WIDTH}
        forms = {"grouping_attention": grouping_forms(b, p, c, WIDTH, ELEMENT)}
        forms["max_pooled_cosine"] = cosine_forms(b, SOURCES, p, WIDTH, ELEMENT)
        for operation, found in forms.items():
            for form, cost in found.items():
                predicted = {
                    chip: 1e6 * max(cost["bytes"] / speed, cost["flops"] / rate)
                    for chip, (speed, rate) in CHIPS.items()
                }
                rows.append({"operation": operation, "form": form, **shape, **cost, "predicted us": predicted})
    return rows
