"""Calibrates the presence thresholds of a model on a validation manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from avgn.evaluation.common import find_common
from avgn.evaluation.inference import Predictions, predict
from avgn.evaluation.thresholds import calibrate_thresholds
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest

log = logging.getLogger(__name__)


def calibrate(engine: Engine, validation: Manifest, disjoint_from: Manifest | None = None) -> Thresholds:
    """Choose the thresholds of p^a and p^v that maximise F1 per class on `validation`.

    Of other classes than the model's the common ones are calibrated, the others keep their thresholds.
    Raises InputError when an item of `validation` is in `disjoint_from` too, and for a model without presence heads.
    """
    if not engine.info.has_presence:
        raise InputError("this model has no presence heads, so it has no thresholds to calibrate: leave them out")
    if disjoint_from is not None:
        shared = {item.id for item in validation.items} & {item.id for item in disjoint_from.items}
        if shared:
            raise InputError(
                f"{len(shared)} items of {validation.path} are in {disjoint_from.path} too (for example "
                f"{min(shared)}): calibrate thresholds on other items than those that are scored"
            )
    common = find_common(engine.info, validation)
    if common.note:
        log.warning("thresholds: %s", common.note)
    narrow = common.narrow(engine)
    found = calibrate_predictions(predict(narrow, common.manifest), narrow.info.classes)
    return common.widen(found, engine.info.thresholds)


def calibrate_predictions(found: Predictions, classes: Sequence[str]) -> Thresholds:
    """Choose the thresholds, as `calibrate` does, from predictions made before."""
    index_of = {name: index for index, name in enumerate(classes)}
    heard = np.zeros((len(found.items), len(index_of)), dtype=bool)
    seen = np.zeros_like(heard)
    for row, item in enumerate(found.items):
        for source in item.sources:
            heard[row, index_of[source.label]] |= source.sounding
            seen[row, index_of[source.label]] |= source.on_screen
    audio, visual = calibrate_thresholds(found.audio_prob, heard, found.visual_prob, seen)
    return Thresholds(audio=tuple(float(v) for v in audio), visual=tuple(float(v) for v in visual))
