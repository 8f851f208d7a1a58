"""Scores every image of a manifest under all protocols, several images at a time.

N images, K classes, h x w the model's grid.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from avgn.evaluation import bounds
from avgn.evaluation.canvas import CANVAS
from avgn.evaluation.inference import UNREADABLE, Progress
from avgn.evaluation.protocols import Protocol
from avgn.evaluation.said import Said
from avgn.evaluation.scoring import (
    ImageScorer,
    ImageScores,
    best_scores,
    chance_scores,
    fixed_scores,
    map_confidence,
    silent_shares,
)
from avgn.evaluation.truth import Truth, read_truth
from avgn.runtime.arrays import Array
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item

BOUNDS = ("floor", "chance", "ceiling")
MAX_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """Holds everything about one image, by protocol name, or by (protocol name, mode) if the choice of classes matters.

    scores: None without scorable sources; limits: floor, chance, ceiling; quiet: the NSA of the image; detections:
    (confidence, IoU) of each map that is ranked, None where it is not known what is right.
    """

    truth: Truth
    scores: dict[tuple[str, str], ImageScores | None] = field(default_factory=dict)
    limits: dict[str, tuple[ImageScores, ...] | None] = field(default_factory=dict)
    quiet: dict[str, float] = field(default_factory=dict)
    detections: dict[str, tuple[Array, Array] | None] = field(default_factory=dict)


class Images:
    """Scores the images of a manifest with what a model says about them, if there is one.

    grid: (h, w) of a picture for the ceilings, where there is no model.
    """

    def __init__(
        self,
        items: Sequence[Item],
        classes: Sequence[str],
        protocols: Sequence[Protocol],
        modes: Sequence[str],
        *,
        said: Said | None = None,
        grid: tuple[int, int] = CANVAS,
        skip_bad: bool = False,
    ) -> None:
        """Prepare the scoring.

        items: of the manifest [N]. classes: names [K] of the maps. protocols, modes: what every image is scored under.
        said: the model's answers, None to compute bounds only. grid: (h, w) cells of a picture on which the ceilings
        are free. skip_bad: count unreadable items instead of raising InputError.
        """
        self.items = items
        self.said = said
        self.protocols = protocols
        self.modes = modes
        self._classes = classes
        self._grid = grid
        self._skip_bad = skip_bad
        self._views = {protocol.view for protocol in protocols}
        counts = {1, *(len(item.parts) or 1 for item in items)}
        self._fixed = {n: (bounds.centre_blob(CANVAS, n), bounds.noise(CANVAS, n)) for n in counts}

    def score(
        self, workers: int | None = None, progress: Progress | None = None
    ) -> tuple[list[int], list[ImageResult], Counter[str]]:
        """Score all images with `workers` threads: (rows that could be read, their results, numbers of skipped ones by
        reason).

        Raises InputError when no item's masks can be read, and without `skip_bad` for the first that can't.
        """
        kept: list[int] = []
        results: list[ImageResult] = []
        skipped: Counter[str] = Counter()
        count = workers or min(os.cpu_count() or 1, MAX_WORKERS)
        with ThreadPoolExecutor(count) as pool:
            try:
                for n, result in enumerate(pool.map(self._score_image, range(len(self.items)))):
                    if result is None:
                        skipped[UNREADABLE] += 1
                    else:
                        kept.append(n)
                        results.append(result)
                    if progress:
                        progress(n + 1, len(self.items))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if not kept:
            raise InputError("no item has a mask that can be read: mend the masks that the manifest names")
        return kept, results, skipped

    def _score_image(self, n: int) -> ImageResult | None:
        item = self.items[n]
        try:
            truth = read_truth(item, self._classes, self._views)
        except InputError as error:
            if not self._skip_bad:
                raise InputError(f"item {item.id!r}: {error}") from None
            return None
        result = ImageResult(truth=truth.without_masks())
        limits: dict[object, tuple[ImageScores, ...]] = {}
        for protocol in self.protocols:
            key = (truth.view(protocol.view), protocol.upsample, protocol.binarise)
            known = bool(truth.targets[protocol.view].labels)
            if known and key not in limits:
                limits[key] = self._limits(n, truth, protocol)
            result.limits[protocol.name] = limits[key] if known else None
        if self.said is not None:
            self._score_maps(n, truth, self.said, result)
        return result

    def _limits(self, n: int, truth: Truth, protocol: Protocol) -> tuple[ImageScores, ...]:
        """Score floor, chance and ceiling of an image with scorable sources."""
        targets = truth.targets[protocol.view]
        whole = protocol.view == "whole"
        num_frames = truth.num_frames if whole else 1
        pieces = self.said.pieces(n) if whole and self.said is not None else 1
        if self.said is None:
            grid = (self._grid[0], self._grid[1] * num_frames)
        else:
            height, width = self.said.grid(n)
            grid = (height, width if whole else max(1, width // truth.num_frames))
        centre, random = self._fixed[num_frames]
        return (
            fixed_scores(centre, targets, protocol),
            chance_scores(random, targets, protocol),
            best_scores(targets, grid, protocol, num_frames=num_frames, pieces=pieces),
        )

    def _score_maps(self, n: int, truth: Truth, said: Said, result: ImageResult) -> None:
        """Add the scores of the model's maps to a result."""
        chosen = {
            (protocol.name, mode): said.chosen(n, truth.targets[protocol.view].labels, mode)
            for protocol in self.protocols
            for mode in self.modes
            if mode in protocol.modes
        }
        scorable = any(targets.labels for targets in truth.targets.values())
        needed = sorted({k for ks in chosen.values() for k in ks}) if scorable else []
        scorer = ImageScorer(
            truth,
            {k: said.map_of(n, k) for k in needed},
            matched=said.kind == "matched",
            pieces=said.pieces(n),
            prior=said.prior(n),
        )
        quiet: dict[object, float] = {}
        for protocol in self.protocols:
            limits = result.limits[protocol.name]
            for mode in self.modes:
                if mode in protocol.modes:
                    classes = chosen[protocol.name, mode]
                    result.scores[protocol.name, mode] = (
                        None if limits is None else scorer.scores(protocol, classes, limits[1].iou)
                    )
            if protocol.silence is not None and said.named and "given" in self.modes:
                key = (protocol.upsample, protocol.silence, protocol.normalise)
                if key not in quiet:
                    quiet[key] = self._quiet(n, truth, said, protocol)
                result.quiet[protocol.name] = quiet[key]
            if protocol.ranked:
                result.detections[protocol.name] = self._detections(n, truth, said, protocol, result)

    def _quiet(self, n: int, truth: Truth, said: Said, protocol: Protocol) -> float:
        maps = said.maps(n)
        silent = [k for k in range(len(maps)) if k not in truth.sounding]
        if not silent:
            return float("nan")
        shares = silent_shares(
            protocol, maps, silent, num_frames=truth.num_frames, pieces=said.pieces(n), tau=said.softmax_scale
        )
        return float(shares.mean())

    def _detections(
        self, n: int, truth: Truth, said: Said, protocol: Protocol, result: ImageResult
    ) -> tuple[Array, Array] | None:
        """Rank the maps of the sources; on a negative the hottest map of the classes that it lists, of all if it
        lists none or maps have no names.

        An image whose sources have no mask is not ranked: what is right there is not known.
        """
        scores = result.scores.get((protocol.name, "given"))
        if scores is not None:
            maps = np.stack([said.map_of(n, k) for k in scores.maps])
            return map_confidence(protocol, maps, pieces=said.pieces(n)), scores.iou
        if truth.present:
            return None
        listed = said.chosen(n, sorted(truth.sounding | truth.visible), "given")
        maps = np.stack([said.map_of(n, k) for k in listed]) if listed else said.maps(n)
        hottest = map_confidence(protocol, maps, pieces=said.pieces(n)).max()
        return np.array([hottest]), np.zeros(1)
