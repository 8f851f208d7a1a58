"""Computes metrics as ratios of sums over items, and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from avgn.runtime.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Holds a ratio: sum(numerator) / sum(denominator) over items, both [N]; with [N, K] the mean over the K defined
    ratios.

    `scale` is 100 for percent.
    """

    numerator: Array
    denominator: Array
    scale: float = 100.0


def ratio_value(ratio: Ratio) -> float | None:
    """Return the value of a ratio, or None when nothing was counted."""
    value = _divide(ratio.numerator.sum(axis=0, dtype=np.float64)[None], _sum(ratio.denominator), ratio.scale)[0]
    return None if np.isnan(value) else float(value)


def bootstrap_intervals(
    ratios: Mapping[str, Ratio], clusters: Array, *, samples: int = 1000, seed: int = 0
) -> dict[str, list[float] | None]:
    """Bootstrap 95 % percentile intervals of ratios over N items, drawing whole clusters with replacement.

    clusters: [N] any labels; items of one label (frames of one video) are drawn together, because they are
    not independent. Returns {name: [low, high] or None}.
    """
    cluster, draws = draw_clusters(clusters, samples, seed)
    count = draws.shape[1]
    if not draws.size:
        return {name: None for name in ratios}
    intervals: dict[str, list[float] | None] = {}
    for name, ratio in ratios.items():
        numerator = draws @ _by_cluster(ratio.numerator, cluster, count)
        denominator = draws @ _by_cluster(ratio.denominator, cluster, count)
        values = _divide(numerator, denominator, ratio.scale)
        values = values[~np.isnan(values)]
        intervals[name] = [float(v) for v in np.quantile(values, [0.025, 0.975])] if len(values) else None
    return intervals


def draw_clusters(clusters: Array, samples: int, seed: int) -> tuple[Array, Array]:
    """Return (the cluster of each item [N], how often each of C clusters is drawn [samples, C]) for labels [N]."""
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(cluster.max()) + 1 if len(cluster) else 0
    if count == 0:
        return cluster, np.zeros((0, 0))
    rng = np.random.default_rng(seed)
    return cluster, rng.multinomial(count, np.full(count, 1 / count), size=max(0, samples)).astype(np.float64)


def _sum(values: Array) -> Array:
    return np.asarray(values.sum(axis=0, dtype=np.float64)[None])


def _by_cluster(values: Array, cluster: Array, count: int) -> Array:
    sums = np.zeros((count, *values.shape[1:]))
    np.add.at(sums, cluster, values)
    return sums


def _divide(numerator: Array, denominator: Array, scale: float) -> Array:
    """Divide sums [R] or [R, K]: values [R]."""
    ratio = np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan) * scale
    if ratio.ndim == 1:
        return np.asarray(ratio)
    known = ~np.isnan(ratio)
    total = known.sum(axis=1)
    return np.where(total > 0, np.where(known, ratio, 0).sum(axis=1) / np.where(total > 0, total, 1), np.nan)


def cluster_mean(ratio: Ratio, clusters: Array) -> float | None:
    """Return the mean over clusters (videos) of each cluster's own value; clusters without a value are left out."""
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(cluster.max()) + 1 if len(cluster) else 0
    numerator = _by_cluster(ratio.numerator, cluster, count)
    values = _divide(numerator, _by_cluster(ratio.denominator, cluster, count), ratio.scale)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
