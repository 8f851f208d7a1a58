"""Evaluating a localizer on a manifest under named protocols, with classes given and predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation import bounds
from avgn.evaluation.inference import UNREADABLE, Predictions, Progress, has_shared_map, predict
from avgn.evaluation.protocols import Protocol, find_protocol
from avgn.evaluation.scoring import (
    ImageScorer,
    ImageScores,
    Truth,
    best_scores,
    chance_scores,
    fixed_scores,
    read_truth,
)
from avgn.evaluation.statistics import Ratio, bootstrap_intervals
from avgn.evaluation.summary import by_size, per_video, values
from avgn.evaluation.tables import (
    ScoreTable,
    build_table,
    class_f1_ratios,
    map_ratios,
    source_f1_ratios,
)
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest

Array = NDArray[Any]
Result = dict[str, Any]

CLASS_MODES = ("given", "predicted")


def evaluate(
    engine: Engine,
    manifest: Manifest,
    protocols: Sequence[str] = ("source-wise", "adaptive"),
    classes: Sequence[str] = CLASS_MODES,
    *,
    thresholds: tuple[Array, Array] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Scores of a model, one result per protocol and way to choose the classes.

    thresholds: (audio [K], visual [K]) in place of the model's own. bootstrap: samples for the 95 % intervals,
    0 for none. `progress(done, total)` counts items, once when they are run and once when they are scored.
    Protocol "video" runs the streaming localizer over the manifest's video files.
    Returns dicts with "protocol", "classes", "metrics" (percent; "false sources per image" is a count), "ci95",
    "floor", "chance", "ceiling" (all three with the right classes), "by_size", "per_video", "counts", "items"
    (images with a scored map), "images" (all that were run) and "skipped" ({reason: count}).
    Raises InputError for unknown protocols, other classes than the model's and unreadable files.
    """
    still = [find_protocol(name) for name in protocols if name != "video"]
    _check_modes(engine, classes)
    results: list[Result] = []
    if still:
        total = 2 * len(manifest.items)
        predictions = predict(
            engine,
            manifest,
            batch_size=batch_size,
            skip_bad=skip_bad,
            progress=(lambda done, _: progress(done, total)) if progress else None,
        )
        run = _Run(engine, predictions, thresholds, needs_predicted="predicted" in classes)
        run.score(still, classes, skip_bad, (lambda done, n: progress(total - n + done, total)) if progress else None)
        results += [run.result(protocol, mode, bootstrap, seed) for protocol in still for mode in classes]
    if "video" in protocols:
        from avgn.evaluation.video import evaluate_video

        results.append(
            evaluate_video(
                with_thresholds(engine, thresholds),
                manifest,
                bootstrap=bootstrap,
                seed=seed,
                skip_bad=skip_bad,
                progress=progress,
            )
        )
    return results


def decide(engine: Engine, predictions: Predictions, thresholds: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """(heard, seen), both [N, K] bool: p^a and p^v at or above their thresholds.

    Without presence heads both say whether the map's maximum reaches the visual threshold.
    """
    info = engine.info
    audio, visual = thresholds if thresholds is not None else (info.thresholds.audio, info.thresholds.visual)
    audio, visual = np.asarray(audio, dtype=np.float64), np.asarray(visual, dtype=np.float64)
    expected = (len(info.classes),)
    if visual.shape != expected or (info.has_presence and audio.shape != expected):
        raise InputError(f"thresholds must be one per class ({expected[0]}), got {audio.shape} and {visual.shape}")
    if not info.has_presence:
        seen = predictions.maps.max(axis=(-2, -1)) >= visual
        return seen, seen
    return predictions.audio_prob >= audio, predictions.visual_prob >= visual


class _Calibrated:
    """An engine whose bundle says other thresholds."""

    def __init__(self, engine: Engine, thresholds: tuple[Array, Array]) -> None:
        audio, visual = (tuple(float(value) for value in values) for values in thresholds)
        self.name = engine.name
        self.info = replace(engine.info, thresholds=Thresholds(audio=audio, visual=visual))
        self.run_audio = engine.run_audio
        self.run_image = engine.run_image


def with_thresholds(engine: Engine, thresholds: tuple[Array, Array] | None) -> Engine:
    """The engine with its thresholds replaced, where others are given."""
    return engine if thresholds is None else _Calibrated(engine, thresholds)


def _check_modes(engine: Engine, classes: Sequence[str]) -> None:
    for mode in classes:
        if mode not in CLASS_MODES:
            raise InputError(f"classes {mode!r} is not known: choose from {', '.join(CLASS_MODES)}")
    if "predicted" in classes and has_shared_map(engine.info):
        raise InputError("this model gives one map for the whole mixture and predicts no classes: use classes given")


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    floor: list[ImageScores | None]
    chance: list[ImageScores | None]
    ceiling: list[ImageScores | None]


class _Run:
    """One model's predictions with the truth of their items, scored."""

    def __init__(
        self, engine: Engine, predictions: Predictions, thresholds: tuple[Array, Array] | None, needs_predicted: bool
    ) -> None:
        self.info = engine.info
        self.predictions = predictions
        self.shared = has_shared_map(engine.info)
        self.truths: list[Truth] = []
        self.kept: list[int] = []
        self.skipped = Counter(predictions.skipped)
        shape = (len(predictions.items), len(engine.info.classes))
        if self.shared:
            self.heard = self.seen = np.zeros(shape, dtype=bool)
        elif needs_predicted or engine.info.has_presence:
            self.heard, self.seen = decide(engine, predictions, thresholds)
        else:
            self.heard = self.seen = np.zeros(shape, dtype=bool)
        self._scores: dict[tuple[str, str], list[ImageScores | None]] = {}
        self._bounds: dict[str, _Bounds] = {}
        self._counts: dict[tuple[str, str], Counter[str]] = {}

    def score(
        self, protocols: Sequence[Protocol], modes: Sequence[str], skip_bad: bool, progress: Progress | None
    ) -> None:
        """Read each item's truth and score its maps under all protocols and modes."""
        grid = (self.predictions.maps.shape[2], self.predictions.maps.shape[3])
        fixed = {p.canvas: (bounds.centre_blob(p.canvas), bounds.noise(p.canvas)) for p in protocols}
        for protocol in protocols:
            self._bounds[protocol.name] = _Bounds(floor=[], chance=[], ceiling=[])
            for mode in modes:
                self._scores[protocol.name, mode] = []
                self._counts[protocol.name, mode] = Counter()
        for n, item in enumerate(self.predictions.items):
            truth = self._read_truth(item, protocols[0].canvas, skip_bad)
            if truth is not None:
                self._score_item(n, truth, protocols, modes, grid, fixed)
                self.kept.append(n)
                # the masks of thousands of images would fill the memory
                self.truths.append(replace(truth, masks=truth.masks[:0]))
            if progress:
                progress(n + 1, len(self.predictions.items))
        if not self.kept:
            raise InputError("no item has a mask that can be read: mend the masks that the manifest names")

    def _read_truth(self, item: Item, canvas: tuple[int, int], skip_bad: bool) -> Truth | None:
        try:
            return read_truth(item, self.names(item.sources), canvas)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"item {item.id!r}: {error}") from None
            self.skipped[UNREADABLE] += 1
            return None

    def _score_item(
        self,
        n: int,
        truth: Truth,
        protocols: Sequence[Protocol],
        modes: Sequence[str],
        grid: tuple[int, int],
        fixed: dict[tuple[int, int], tuple[bounds.FixedMap, bounds.FixedMap]],
    ) -> None:
        chosen = {mode: self.chosen(n, truth, mode) for mode in modes}
        needed = sorted({k for ks in chosen.values() for k in ks}) if truth.labels else []
        scorer = ImageScorer(truth, {k: self.predictions.maps[n, 0 if self.shared else k] for k in needed})
        some = bool(truth.labels)
        for protocol in protocols:
            for mode in modes:
                self._score_one(scorer, protocol, mode, chosen[mode])
            limits = self._bounds[protocol.name]
            centre, random = fixed[protocol.canvas]
            limits.floor.append(fixed_scores(centre, truth, protocol) if some else None)
            limits.chance.append(chance_scores(random, truth, protocol) if some else None)
            limits.ceiling.append(best_scores(truth, grid, protocol) if some else None)

    def _score_one(self, scorer: ImageScorer, protocol: Protocol, mode: str, chosen: Sequence[int]) -> None:
        if not scorer.truth.labels:
            self._scores[protocol.name, mode].append(None)
            return
        scores = scorer.scores(protocol, chosen)
        self._scores[protocol.name, mode].append(scores)
        counts = self._counts[protocol.name, mode]
        counts["sources"] += len(scores.ap)
        counts["missed sources"] += int((~scores.found).sum())
        counts["surplus maps"] += scores.surplus
        counts["flat maps"] += len(scorer.flat & set(chosen) & set(scorer.truth.labels))
        counts["tied maps"] += scorer.tied(protocol, chosen)

    def names(self, sources: Sequence[Any]) -> Sequence[str]:
        """The class list; for a shared map the labels of the item itself."""
        return sorted({source.label for source in sources}) if self.shared else self.info.classes

    def chosen(self, n: int, truth: Truth, mode: str) -> list[int]:
        """The classes of image n whose maps are scored."""
        if mode == "given":
            return list(truth.labels)
        return [int(k) for k in np.flatnonzero(self.heard[n] & self.seen[n])]

    def result(self, protocol: Protocol, mode: str, bootstrap: int, seed: int) -> Result:
        """The scores under one protocol and mode as plain numbers."""
        num_classes = max([len(self.info.classes)] + [k + 1 for t in self.truths for k in t.labels])
        table = build_table(self._scores[protocol.name, mode], self.truths, num_classes)
        ratios = map_ratios(table) | self._presence_ratios(table, mode)
        videos = np.array([self.predictions.items[n].video for n in self.kept])
        limits = self._bounds[protocol.name]
        tables = {
            "floor": build_table(limits.floor, self.truths, num_classes),
            "chance": build_table(limits.chance, self.truths, num_classes),
            "ceiling": build_table(limits.ceiling, self.truths, num_classes),
        }
        skipped = Counter(self.skipped)
        for truth in self.truths:
            skipped.update(truth.skipped)
        result: Result = {
            "protocol": protocol.name,
            "classes": mode,
            "maps": "shared-map" if self.shared else "per class",
            "metrics": values(ratios),
            "ci95": bootstrap_intervals(ratios, videos, samples=bootstrap, seed=seed) if bootstrap else {},
        }
        for name, bound in tables.items():
            result[name] = values(map_ratios(bound) | source_f1_ratios(bound, bound.sources_per_image))
        result["by_size"] = by_size(table, tables)
        result["per_video"] = per_video(ratios, videos)
        result["counts"] = dict(self._counts[protocol.name, mode])
        result["items"] = int(np.count_nonzero(~np.isnan(table.piap)))
        result["images"] = len(self.truths)
        result["skipped"] = dict(skipped)
        return result

    def _presence_ratios(self, table: ScoreTable, mode: str) -> dict[str, Ratio]:
        heard, seen = self.heard[self.kept], self.seen[self.kept]
        if mode == "given":
            ratios = source_f1_ratios(table, table.sources_per_image)
        else:
            said = heard & seen
            present = _indicator([t.present for t in self.truths], said.shape)
            scorable = _indicator([frozenset(t.labels) for t in self.truths], said.shape)
            ratios = source_f1_ratios(table, (said & (scorable | ~present)).sum(axis=1).astype(np.float64))
            ratios["false sources per image"] = Ratio(
                numerator=(said & ~present).sum(axis=1).astype(np.float64), denominator=np.ones(len(said)), scale=1
            )
        if self.info.has_presence:
            ratios |= class_f1_ratios("audio", heard, _indicator([t.sounding for t in self.truths], heard.shape))
            ratios |= class_f1_ratios("visual", seen, _indicator([t.visible for t in self.truths], seen.shape))
        return ratios


def _indicator(sets: Sequence[frozenset[int]], shape: tuple[int, ...]) -> Array:
    marked = np.zeros(shape, dtype=bool)
    for n, members in enumerate(sets):
        marked[n, sorted(members)] = True
    return marked
