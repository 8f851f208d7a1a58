"""How numbers are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, quantiles, largest and mean of numbers (not none)."""
    found = {f"p{round(100 * q)}": float(np.quantile(values, q)) for q in QUANTILES}
    return {"min": float(min(values)), **found, "max": float(max(values)), "mean": float(np.mean(values))}
