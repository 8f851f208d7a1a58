"""A bundle's thresholds and joint rule from a manifest, written into its bundle.json.

Legend: N items, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from avgn.evaluation.calibration import calibrate_predictions
from avgn.evaluation.common import find_common
from avgn.evaluation.inference import Predictions, predict
from avgn.runtime.arrays import Array
from avgn.runtime.bundle import Bundle, file_sha256, write_bundle_info
from avgn.runtime.bundle_schema import Joint
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.joint import joint_odds, judge
from avgn.runtime.manifest import Manifest

# weights of what is seen that are tried, in parts of the bundle's own
SEEN_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
# a threshold below all scores
BELOW_ALL_SCORES = -1e3
# false sources an image that a rule may give
MAX_FALSE_PER_IMAGE = 0.25
NUM_BINS = 10
# scales of probabilities that are tried: from this one to its inverse, two percent apart
MIN_SCALE, NUM_SCALES = 0.02, 391


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Holds what was found: the rule, its F1 of classes (percent) and its false sources an image, beside the bundle's
    own.

    `reliability`: for each tenth of the joint probability, how many class scores lie there, their mean probability and
    the share that are right. `note`: which classes were left out, if any.
    """

    joint: Joint
    f1: float
    false_sources: float
    before: tuple[float, float]
    reliability: tuple[tuple[int, float, float], ...]
    note: str = ""


def calibrate_bundle(
    bundle: Bundle,
    engine: Engine,
    manifest: Manifest,
    *,
    max_false: float = MAX_FALSE_PER_IMAGE,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Fit the thresholds and the joint rule of a bundle on a manifest, and write them into its bundle.json.

    One threshold serves all classes. Of the rules that give at most `max_false` false sources an image, the one with
    the best F1 is taken; then the scale that makes the probabilities most likely. Of other classes than the bundle's
    the common ones are fitted.
    Raises InputError for a bundle without a joint rule and for a manifest without sounding sources on screen.
    """
    rule = bundle.info.joint
    if rule is None:
        raise InputError(
            f"bundle {bundle.path} has no joint rule to calibrate: set thresholds with avgn evaluate --thresholds"
        )
    common = find_common(bundle.info, manifest)
    manifest, rule, classes = common.manifest, common.narrow_rule(rule), common.manifest.classes
    found = predict(common.narrow(engine), manifest, progress=progress)
    truth = sounding_on_screen(found, classes)
    if not truth.any():
        raise InputError(f"{manifest.path} has no source that sounds and is on screen: calibration needs some")
    before = _score(rule, found, truth)
    best, score = rule, before
    for weight in SEEN_WEIGHTS:
        made = _best_threshold(replace(rule, visual_weight=rule.visual_weight * weight), found, truth, max_false)
        value = _score(made, found, truth)
        if _rank(value, max_false) > _rank(score, max_false):
            best, score = made, value
    best = fit_scale(best, found, truth)
    thresholds = common.widen(calibrate_predictions(found, classes), bundle.info.thresholds)
    fitted = {
        "manifest_sha256": file_sha256(manifest.path),
        "items": len(found.items),
        "datasets": sorted({item.dataset for item in found.items if item.dataset}),
    }
    info = replace(
        bundle.info,
        joint=common.widen_rule(best, len(bundle.info.classes)),
        thresholds=thresholds,
        provenance=bundle.info.provenance | {"calibration": fitted},
    )
    write_bundle_info(bundle.path, info)
    return Calibrated(
        joint=best,
        f1=score[0],
        false_sources=score[1],
        before=before,
        reliability=reliability(best, found, truth),
        note=common.note,
    )


def sounding_on_screen(found: Predictions, classes: Sequence[str]) -> Array:
    """Return [N, K] bool: which classes sound and are seen."""
    index_of = {name: index for index, name in enumerate(classes)}
    truth = np.zeros((len(found.items), len(classes)), dtype=bool)
    for row, item in enumerate(found.items):
        for source in item.sources:
            truth[row, index_of[source.label]] |= source.sounding and source.on_screen
    return truth


def reliability(rule: Joint, found: Predictions, truth: Array) -> tuple[tuple[int, float, float], ...]:
    """Return (count, mean probability, share that are right) of the classes that could be said, in each tenth of their
    probability; those that another class stands for are left out."""
    prob = _probabilities(rule, found)
    tenth = np.minimum((prob * NUM_BINS).astype(int), NUM_BINS - 1)
    rows = []
    for at in range(NUM_BINS):
        inside = (tenth == at) & (prob > 0)
        count = int(inside.sum())
        rows.append((count, float(prob[inside].mean()), float(truth[inside].mean())) if count else (0, 0.0, 0.0))
    return tuple(rows)


def fit_scale(rule: Joint, found: Predictions, truth: Array) -> Joint:
    """Return the rule with the scale that makes its probabilities most likely, on the classes that could be said.

    A threshold stays at a probability of 0.5 (Platt's scaling without its offset). Unchanged where nothing, or
    nothing wrong, could be said.
    """
    odds = joint_odds(rule, found.audio_prob, found.visual_prob).astype(np.float64)
    said = _probabilities(rule, found) > 0
    right = truth[said]
    if right.all() or not right.any():
        return rule

    toward = np.where(right, odds[said], -odds[said])
    scales = np.geomspace(MIN_SCALE, 1 / MIN_SCALE, NUM_SCALES)
    surprise = [np.logaddexp(0, -scale * toward).sum() for scale in scales]
    return replace(rule, scale=round(float(scales[int(np.argmin(surprise))]), 4))


def _best_threshold(rule: Joint, found: Predictions, truth: Array, max_false: float) -> Joint:
    """Return the rule with the one threshold that gives the best F1 of at most `max_false` false sources an image.

    Which classes give way to others depends on better ones alone, so it is the same at every threshold.
    """
    count = truth.shape[1]
    everything = replace(rule, thresholds=(BELOW_ALL_SCORES,) * count)
    kept = _claimed(everything, found)
    score = joint_odds(everything, found.audio_prob, found.visual_prob)[kept] + BELOW_ALL_SCORES
    right = truth[kept]
    order = np.argsort(-score, kind="stable")
    hits, said = np.cumsum(right[order]), np.arange(1, len(order) + 1)
    f1 = 2 * hits / (said + truth.sum())
    allowed = said - hits <= max_false * len(truth)
    if not allowed.any():
        return rule
    at = int(np.argmax(np.where(allowed, f1, -1.0)))
    following = score[order[at + 1]] if at + 1 < len(order) else score[order[at]] - 1.0
    return replace(rule, thresholds=(round(float(score[order[at]] + following) / 2, 4),) * count)


def _claimed(rule: Joint, found: Predictions) -> Array:
    return _probabilities(rule, found) >= 0.5


def _probabilities(rule: Joint, found: Predictions) -> Array:
    """Return [N, K]: the probability of each class after the better ones had their say, 0 for those that gave way."""
    halves = zip(found.audio_prob, found.visual_prob, found.maps, strict=True)
    return np.stack([judge(rule, heard, seen, maps).prob for heard, seen, maps in halves])


def _score(rule: Joint, found: Predictions, truth: Array) -> tuple[float, float]:
    """Return (F1 of classes in percent, false sources an image)."""
    said = _claimed(rule, found)
    right = int((said & truth).sum())
    return 200 * right / max(1, int(said.sum() + truth.sum())), float((said & ~truth).sum() / len(truth))


def _rank(score: tuple[float, float], max_false: float) -> tuple[bool, float]:
    f1, false_sources = score
    allowed = false_sources <= max_false
    return allowed, f1 if allowed else -false_sources
