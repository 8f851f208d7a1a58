"""From the scores of images to results: plain numbers that can be written as JSON.

N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from avgn.evaluation.bounds import centre_blob, noise
from avgn.evaluation.detections import Detections, gather, ranked_intervals, ranked_values
from avgn.evaluation.images import BOUNDS, ImageResult
from avgn.evaluation.metrics import FLAT_LEVEL, min_max
from avgn.evaluation.protocols import Protocol
from avgn.evaluation.said import Said
from avgn.evaluation.scoring import ImageScores
from avgn.evaluation.statistics import Ratio, bootstrap_intervals
from avgn.evaluation.summary import by_size, per_video, values
from avgn.evaluation.tables import (
    ScoreTable,
    build_table,
    class_f1_ratios,
    image_ratios,
    map_ratios,
    per_class,
    source_f1_ratios,
    source_ratios,
    surplus_ratios,
)
from avgn.evaluation.truth import Targets
from avgn.runtime.arrays import Array
from avgn.runtime.manifest import Item

Result = dict[str, Any]


class Results:
    """Makes the results of every protocol and mode from N images; `kept` are their rows in `said`."""

    def __init__(
        self,
        items: Sequence[Item],
        classes: Sequence[str],
        images: Sequence[ImageResult],
        *,
        said: Said | None,
        kept: Sequence[int],
        skipped: Counter[str],
    ) -> None:
        """Gather what results are made of.

        items, images: the scored items [N] and their scores [N]. classes: names [K]. said: the model's answers, None
        for bounds only. kept: the row of each scored item [N] among all items. skipped: numbers of others by reason.
        """
        self._images = images
        self._said = said
        self._kept = list(kept)
        self._skipped = skipped
        self._videos = np.array([item.video for item in items])
        self._num_classes = len(classes)
        self._classes = classes

    def result(self, protocol: Protocol, mode: str, bootstrap: int, seed: int) -> Result:
        """Make one result: the scores of the model, with floor, ceiling and all that stands beside them."""
        assert self._said is not None
        targets = self._targets(protocol)
        scores = [image.scores[protocol.name, mode] for image in self._images]
        table = build_table(scores, targets, self._num_classes)
        limits = self._limits(protocol, targets)
        if self._said.kind == "matched":
            ratios = map_ratios(table) | surplus_ratios(scores)
        else:
            ratios = map_ratios(table) | self._presence_ratios(self._said, table, targets, mode)
        result: Result = {
            "protocol": protocol.name,
            "classes": mode,
            "maps": self._said.kind,
            "metrics": {},
            "ci95": {},
            **{name: self._bound(limits[name], protocol) for name in BOUNDS},
        }
        if mode == "given":
            ratios |= self._quiet(protocol, result)
        result["metrics"] = values(ratios)
        if bootstrap:
            result["ci95"] = bootstrap_intervals(ratios, self._videos, samples=bootstrap, seed=seed)
        if protocol.ranked:
            self._rank(protocol, result, limits, bootstrap, seed)
        result["by_size"] = by_size(table, limits)
        result["per_class"] = per_class(table, self._classes)
        result["per_video"] = per_video(ratios, self._videos)
        self._apart(result, table)
        result["counts"] = self._counts(scores)
        return self._end(result, table, targets)

    def bounds(self, protocol: Protocol) -> Result:
        """Make one result without a model: floor, chance and ceiling."""
        targets = self._targets(protocol)
        limits = self._limits(protocol, targets)
        result: Result = {
            "protocol": protocol.name,
            "classes": "given",
            "maps": "none",
            "metrics": {},
            **{name: self._bound(limits[name], protocol) for name in BOUNDS},
            "by_size": by_size(limits["floor"], limits, has_scores=False),
            "counts": {"sources": len(limits["floor"].image)},
        }
        return self._end(result, limits["floor"], targets)

    def _targets(self, protocol: Protocol) -> list[Targets]:
        return [image.truth.targets[protocol.view] for image in self._images]

    def _limits(self, protocol: Protocol, targets: Sequence[Targets]) -> dict[str, ScoreTable]:
        columns: dict[str, list[ImageScores | None]] = {name: [] for name in BOUNDS}
        for image in self._images:
            limits = image.limits[protocol.name]
            for place, name in enumerate(BOUNDS):
                columns[name].append(None if limits is None else limits[place])
        return {name: build_table(column, targets, self._num_classes) for name, column in columns.items()}

    def _bound(self, table: ScoreTable, protocol: Protocol) -> dict[str, float | None]:
        return values(map_ratios(table) | source_f1_ratios(table, table.sources_per_image))

    def _end(self, result: Result, table: ScoreTable, targets: Sequence[Targets]) -> Result:
        skipped = Counter(self._skipped)
        for one in targets:
            skipped.update(one.skipped)
        result["items"] = int(np.count_nonzero(~np.isnan(table.piap)))
        result["images"] = len(self._images)
        result["skipped"] = dict(skipped)
        return result

    def _counts(self, scores: Sequence[ImageScores | None]) -> dict[str, int]:
        known = [score for score in scores if score is not None]
        return {
            "sources": sum(len(score.ap) for score in known),
            "missed sources": sum(int((~score.found).sum()) for score in known),
            "surplus maps": sum(score.surplus for score in known),
            "flat maps": sum(score.flat for score in known),
            "tied maps": sum(score.tied for score in known),
        }

    def _apart(self, result: Result, table: ScoreTable) -> None:
        """Score the images whose pictures show one sounding class apart, beside the score of all."""
        repeated = np.array([image.truth.repeated for image in self._images]) & ~np.isnan(table.piap)
        if repeated.any():
            ratios = source_ratios(table, repeated[table.image]) | image_ratios(table, repeated)
            result["same_class"] = {"items": int(repeated.sum()), "metrics": values(ratios)}

    def _quiet(self, protocol: Protocol, result: Result) -> dict[str, Ratio]:
        """Compute NSA, with a floor and a chance that are one map for every class."""
        shares = np.array([image.quiet.get(protocol.name, np.nan) for image in self._images])
        known = ~np.isnan(shares)
        if not known.any():
            return {}
        for name, fixed in (("floor", centre_blob()), ("chance", noise())):
            if protocol.silence == "softmax":
                quiet = float(1 / self._num_classes <= FLAT_LEVEL)
            else:
                quiet = float((min_max(fixed.score)[0] <= FLAT_LEVEL).mean())
            result[name]["NSA"] = 100 * quiet
        result["ceiling"]["NSA"] = 100.0
        return {"NSA": Ratio(numerator=np.where(known, shares, 0), denominator=known.astype(np.float64))}

    def _rank(
        self, protocol: Protocol, result: Result, limits: dict[str, ScoreTable], bootstrap: int, seed: int
    ) -> None:
        """Add the confidence-ranked metrics; the floors have one confidence, the ceiling knows what is right."""
        targets = self._targets(protocol)
        found = gather([image.detections[protocol.name] for image in self._images], [len(t.labels) for t in targets])
        result["metrics"] |= ranked_values(found)
        if bootstrap:
            result["ci95"] |= ranked_intervals(found, self._videos, samples=bootstrap, seed=seed)
        result["negatives"] = found.num_negatives
        right = found.positives[found.image] > 0
        for name in BOUNDS:
            overlap = np.zeros(len(found.image))
            # sources stand in the same order in both
            overlap[right] = limits[name].iou
            sure = overlap if name == "ceiling" else np.zeros(len(overlap))
            other = Detections(image=found.image, confidence=sure, iou=overlap, positives=found.positives)
            result[name] |= ranked_values(other)

    def _presence_ratios(
        self, said: Said, table: ScoreTable, targets: Sequence[Targets], mode: str
    ) -> dict[str, Ratio]:
        truths = [image.truth for image in self._images]
        heard, seen = said.heard[self._kept], said.seen[self._kept]
        if mode == "given":
            ratios = source_f1_ratios(table, table.sources_per_image)
        else:
            decided = heard & seen
            present = _indicator([t.present for t in truths], decided.shape)
            # a map counts once for each picture on which its class is scored
            sources = np.zeros(decided.shape)
            for n, one in enumerate(targets):
                np.add.at(sources[n], list(one.labels), 1)
            counted = np.where(sources > 0, sources, ~present)
            ratios = source_f1_ratios(table, (decided * counted).sum(axis=1))
            ones = np.ones(len(decided))
            ratios["false sources per image"] = Ratio(
                numerator=(decided & ~present).sum(axis=1).astype(np.float64), denominator=ones, scale=1
            )
            missed = np.bincount(table.image, weights=~table.found, minlength=len(decided))
            ratios["missed sources per image"] = Ratio(numerator=missed, denominator=ones, scale=1)
        if said.info.has_presence:
            ratios |= class_f1_ratios("audio", heard, _indicator([t.sounding for t in truths], heard.shape))
            ratios |= class_f1_ratios("visual", seen, _indicator([t.visible for t in truths], seen.shape))
        return ratios


def _indicator(sets: Sequence[frozenset[int]], shape: tuple[int, ...]) -> Array:
    marked = np.zeros(shape, dtype=bool)
    for n, members in enumerate(sets):
        marked[n, sorted(members)] = True
    return marked
