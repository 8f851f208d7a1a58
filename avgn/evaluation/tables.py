"""Turns the scores of images into the named metrics, each a ratio of sums over images.

N images, T scored sources of all images together, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avgn.evaluation.detections import IOU_LEVELS
from avgn.evaluation.metrics import area_under_success
from avgn.evaluation.scoring import ImageScores
from avgn.evaluation.statistics import Ratio
from avgn.evaluation.truth import Targets
from avgn.runtime.arrays import Array


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Holds all scores of one run: per source [T] image, label, area, ap, iou, found; per image [N] piap, ciou and the
    `worst` IoU of its sources."""

    num_images: int
    num_classes: int
    image: Array
    label: Array
    area: Array
    ap: Array
    iou: Array
    found: Array
    piap: Array
    ciou: Array
    worst: Array

    @property
    def sources_per_image(self) -> Array:
        return np.bincount(self.image, minlength=self.num_images).astype(np.float64)

    @property
    def image_area(self) -> Array:
        """Return the mean area of each image's sources [N]; NaN without sources."""
        return _mean_per_image(self.image, self.area, self.num_images)


def build_table(scores: Sequence[ImageScores | None], targets: Sequence[Targets], num_classes: int) -> ScoreTable:
    """Gather the scores of N images; None stands for an image without scorable sources."""
    rows = [(n, s, t) for n, (s, t) in enumerate(zip(scores, targets, strict=True)) if s is not None]
    image = np.repeat([n for n, _, _ in rows], [len(s.ap) for _, s, _ in rows]).astype(np.int64)
    empty = [np.zeros(0)]
    iou = np.concatenate([s.iou for _, s, _ in rows] or empty)
    piap = np.full(len(scores), np.nan)
    piap[[n for n, _, _ in rows]] = [s.piap for _, s, _ in rows]
    return ScoreTable(
        num_images=len(scores),
        num_classes=num_classes,
        image=image,
        label=np.array([k for _, _, t in rows for k in t.labels], dtype=np.int64),
        area=np.concatenate([t.areas for _, _, t in rows] or empty),
        ap=np.concatenate([s.ap for _, s, _ in rows] or empty),
        iou=iou,
        found=np.concatenate([s.found for _, s, _ in rows] or empty).astype(bool),
        piap=piap,
        ciou=_mean_per_image(image, iou, len(scores)),
        worst=_least_per_image(image, iou, len(scores)),
    )


def map_ratios(table: ScoreTable) -> dict[str, Ratio]:
    """Return CAP, macro CAP, PIAP, CIoU@t, AUC (of CIoU), IIoU@t; AP, IoU@t and AUC(IoU) over the maps that were given.

    CAP, PIAP, CIoU and IIoU count a source whose class was not found as 0; AP and IoU leave it out.
    """
    ratios = source_ratios(table) | image_ratios(table)
    by_class = np.zeros((2, table.num_images, table.num_classes))
    np.add.at(by_class[0], (table.image, table.label), table.ap)
    np.add.at(by_class[1], (table.image, table.label), 1)
    ratios["macro CAP"] = Ratio(numerator=by_class[0], denominator=by_class[1])
    return ratios


def source_ratios(table: ScoreTable, select: Array | None = None) -> dict[str, Ratio]:
    """Return CAP, AP, IoU@t and AUC(IoU), of the selected sources ([T] bool) if given."""
    chosen = np.ones(len(table.image), dtype=bool) if select is None else select
    given = chosen & table.found

    def total(values: Array) -> Array:
        return np.bincount(table.image, weights=values.astype(np.float64), minlength=table.num_images)

    ratios = {
        "CAP": Ratio(numerator=total(table.ap * chosen), denominator=total(chosen)),
        "AP": Ratio(numerator=total(table.ap * given), denominator=total(given)),
    }
    for level in IOU_LEVELS:
        ratios[f"IoU@{level}"] = Ratio(numerator=total((table.iou >= level) & given), denominator=total(given))
    ratios["AUC(IoU)"] = Ratio(numerator=total(area_under_success(table.iou) * given), denominator=total(given))
    return ratios


def image_ratios(table: ScoreTable, select: Array | None = None) -> dict[str, Ratio]:
    """Return PIAP, CIoU@t, AUC (of CIoU) and IIoU@t (all sources of an image pass), of the selected images ([N]
    bool)."""
    chosen = ~np.isnan(table.piap) if select is None else select & ~np.isnan(table.piap)
    count = chosen.astype(np.float64)
    ciou = np.where(chosen, table.ciou, 0)
    ratios = {"PIAP": Ratio(numerator=np.where(chosen, table.piap, 0), denominator=count)}
    for level in IOU_LEVELS:
        ratios[f"CIoU@{level}"] = Ratio(numerator=count * (ciou >= level), denominator=count)
    ratios["AUC"] = Ratio(numerator=count * area_under_success(ciou), denominator=count)
    for level in IOU_LEVELS:
        ratios[f"IIoU@{level}"] = Ratio(numerator=count * (np.nan_to_num(table.worst) >= level), denominator=count)
    return ratios


def per_class(table: ScoreTable, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return CAP, IoU@t and AUC(IoU) in percent of the classes that have sources; missed sources count as 0."""
    found: dict[str, dict[str, Any]] = {}
    for k in np.unique(table.label):
        chosen = table.label == k
        overlap = table.iou[chosen]
        found[classes[k]] = {
            "sources": int(chosen.sum()),
            "CAP": 100 * float(table.ap[chosen].mean()),
            **{f"IoU@{level}": 100 * float((overlap >= level).mean()) for level in IOU_LEVELS},
            "AUC(IoU)": 100 * float(area_under_success(overlap).mean()),
        }
    return found


def source_f1_ratios(table: ScoreTable, num_said: Array) -> dict[str, Ratio]:
    """Return F1@t of sources: right class and IoU >= t. num_said: [N] maps that were given for scorable or wrong
    classes."""
    total = num_said + table.sources_per_image
    ratios = {}
    for level in IOU_LEVELS:
        hits = np.bincount(table.image, weights=(table.iou >= level) & table.found, minlength=table.num_images)
        ratios[f"F1@{level}"] = Ratio(numerator=2 * hits, denominator=total)
    return ratios


def surplus_ratios(scores: Sequence[ImageScores | None]) -> dict[str, Ratio]:
    """Return the maps that no source was left for, as a mean over the images with scorable sources."""
    surplus = np.array([0 if score is None else score.surplus for score in scores], dtype=np.float64)
    known = np.array([score is not None for score in scores], dtype=np.float64)
    return {"surplus maps per image": Ratio(numerator=surplus, denominator=known, scale=1)}


def class_f1_ratios(name: str, said: Array, truth: Array) -> dict[str, Ratio]:
    """Compute macro and micro F1 of a head's decisions said [N, K] against truth [N, K], both bool."""
    twice_hits = 2.0 * (said & truth)
    total = said.astype(np.float64) + truth
    return {
        f"class F1 {name}": Ratio(numerator=twice_hits, denominator=total),
        f"class F1 {name} micro": Ratio(numerator=twice_hits.sum(axis=1), denominator=total.sum(axis=1)),
    }


def _mean_per_image(image: Array, values: Array, num_images: int) -> Array:
    count = np.bincount(image, minlength=num_images)
    total = np.bincount(image, weights=values, minlength=num_images)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _least_per_image(image: Array, values: Array, num_images: int) -> Array:
    least = np.full(num_images, np.inf)
    np.minimum.at(least, image, values)
    return np.where(np.isinf(least), np.nan, least)
