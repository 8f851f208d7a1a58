"""Summarizes how numbers are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the least, the quantiles, the largest and the mean of at least one number."""
    found = {f"p{round(100 * q)}": float(np.quantile(values, q)) for q in QUANTILES}
    return {"min": float(min(values)), **found, "max": float(max(values)), "mean": float(np.mean(values))}
