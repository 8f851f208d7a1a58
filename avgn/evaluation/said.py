"""Gives the evaluation what a model says about the items of a manifest.

N items, K classes, h x w the grid of an item's maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avgn.evaluation.choice import map_limit, temperature
from avgn.evaluation.inference import Predictions
from avgn.evaluation.map_kinds import map_kind
from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.joint import judge

MATCHED_NOTE = (
    "the model's maps have no names: in each image the truth says which map is whose (the assignment of PIAP), "
    "which favours this model over those that must name their maps"
)


class Said:
    """Holds a model's predictions and decisions.

    kind: whose the maps are (see `map_kind`). classes: the model's; where its maps say nothing about classes, those of
    the items. heard, seen: [N, K] bool, all false where nothing was decided. notes: what a reader of the scores must
    know.
    """

    def __init__(
        self,
        engine: Engine,
        predictions: Predictions,
        thresholds: tuple[Array, Array] | None,
        *,
        needs_predicted: bool,
    ) -> None:
        self.info = engine.info
        self.kind = map_kind(engine.info)
        self.named = self.kind == "per class"
        self.classes = engine.info.classes if self.named else _labels(predictions)
        self.notes = (MATCHED_NOTE,) if self.kind == "matched" else ()
        self.softmax_scale = temperature(engine.info) * map_limit(engine.info)
        self._predictions = predictions
        shape = (len(predictions.items), len(engine.info.classes))
        if self.named and (needs_predicted or engine.info.has_presence):
            self.heard, self.seen = decide(engine.info, predictions, thresholds)
        else:
            self.heard = self.seen = np.zeros(shape, dtype=bool)

    def maps(self, n: int) -> Array:
        """Return all maps of an item, [K, h, w]."""
        return self._predictions.maps[n]

    def map_of(self, n: int, k: int) -> Array:
        """Return the map [h, w] of a class, or of maps without names the k-th."""
        return np.asarray(self._predictions.maps[n][0 if self.kind == "shared-map" else k])

    def grid(self, n: int) -> tuple[int, int]:
        """Return the grid (h, w) of the item's maps."""
        _, height, width = self._predictions.maps[n].shape
        return (height, width)

    def pieces(self, n: int) -> int:
        """Count the maps that were made apart and stand side by side."""
        return self._predictions.pieces[n]

    def prior(self, n: int) -> Array | None:
        """Return the map of the object prior, None if none was given."""
        return None if self._predictions.priors is None else self._predictions.priors[n]

    def chosen(self, n: int, labels: Sequence[int], mode: str) -> list[int]:
        """Return the classes of item n whose maps are scored against sources of these labels; of maps without names
        all."""
        if self.kind == "matched":
            return list(range(len(self.maps(n))))
        if mode == "given":
            return sorted(set(labels))
        return [int(k) for k in np.flatnonzero(self.heard[n] & self.seen[n])]


def _labels(predictions: Predictions) -> tuple[str, ...]:
    return tuple(sorted({source.label for item in predictions.items for source in item.sources}))


def decide(info: BundleInfo, predictions: Predictions, thresholds: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """Decide which classes are (heard, seen), both [N, K] bool: p^a and p^v at or above their thresholds.

    Where the bundle has a joint rule and no others are given, both say which classes it claims.
    Without presence heads both say whether the map's maximum reaches the visual threshold.
    """
    audio, visual = thresholds if thresholds is not None else (info.thresholds.audio, info.thresholds.visual)
    audio, visual = np.asarray(audio, dtype=np.float64), np.asarray(visual, dtype=np.float64)
    expected = (len(info.classes),)
    if visual.shape != expected or (info.has_presence and audio.shape != expected):
        raise InputError(f"thresholds must be one per class ({expected[0]}), got {audio.shape} and {visual.shape}")
    if not info.has_presence:
        seen = np.stack([maps.max(axis=(-2, -1)) for maps in predictions.maps]) >= visual
        return seen, seen
    if thresholds is None and info.joint is not None:
        halves = zip(predictions.audio_prob, predictions.visual_prob, predictions.maps, strict=True)
        claimed = np.stack([judge(info.joint, heard, seen, maps).claimed for heard, seen, maps in halves])
        return claimed, claimed
    return predictions.audio_prob >= audio, predictions.visual_prob >= visual
