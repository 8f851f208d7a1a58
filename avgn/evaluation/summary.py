"""Summarizes scores as plain numbers: all metrics, by the size of the objects, and per video."""

from __future__ import annotations

from typing import Any

import numpy as np

from avgn.evaluation.metrics import terciles
from avgn.evaluation.statistics import Ratio, cluster_mean, ratio_value
from avgn.evaluation.tables import ScoreTable, image_ratios, source_ratios
from avgn.runtime.arrays import Array

Result = dict[str, Any]

SIZES = ("small", "medium", "large")
PER_VIDEO = ("CAP", "PIAP", "CIoU@0.3", "AUC")


def values(ratios: dict[str, Ratio]) -> dict[str, float | None]:
    """Compute {metric: value, None where nothing was counted}."""
    return {name: ratio_value(ratio) for name, ratio in ratios.items()}


def by_size(table: ScoreTable, limits: dict[str, ScoreTable], *, has_scores: bool = True) -> dict[str, Result]:
    """Score sources by terciles of their mask's area, and of images by terciles of their mean area.

    Without scores of a model, `table` gives the areas alone.
    """
    source_group = terciles(table.area)
    known = ~np.isnan(table.piap)
    image_group = np.full(table.num_images, -1)
    image_group[known] = terciles(table.image_area[known])
    groups: dict[str, Result] = {}
    for group, name in enumerate(SIZES):
        chosen = source_group == group
        areas = table.area[chosen]

        def scores(of: ScoreTable, chosen: Array = chosen, group: int = group) -> dict[str, float | None]:
            return values(source_ratios(of, chosen) | image_ratios(of, image_group == group))

        groups[name] = {
            "sources": int(chosen.sum()),
            "area": [float(areas.min()), float(areas.max())] if len(areas) else None,
            "metrics": scores(table) if has_scores else {},
            **{bound: scores(limits[bound]) for bound in limits},
        }
    return groups


def per_video(ratios: dict[str, Ratio], videos: Array) -> Result:
    """Return the macro mean over videos, which weighs a long video as much as a short one."""
    scores = {name: cluster_mean(ratios[name], videos) for name in PER_VIDEO}
    return {"videos": len(np.unique(videos)), "metrics": scores}
