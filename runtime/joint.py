"""Which classes sound and are seen, by what both halves say of them together.

One thing in the picture with one sound is one source: of classes that peak at the same place the best one is said, and
the others are its alternatives.

Shapes: K classes, h x w the map grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle_schema import Joint

# beyond these log-odds a probability says no more
LIMIT = 15.0
# but of two things in plain view that both are hardly heard, the less unlikely one is ahead
LEAST_HEARD = -60.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`prob` [K]: 0.5 at a class's threshold, 0 where another class took its place; `instead_of` {class: (k, prob)}."""

    prob: Floats
    instead_of: dict[int, tuple[tuple[int, float], ...]]

    @property
    def claimed(self) -> npt.NDArray[np.bool_]:
        """[K]: which classes are sources on screen."""
        return np.asarray(self.prob >= 0.5)


def joint_odds(rule: Joint, audio_prob: Floats, visual_prob: Floats) -> Floats:
    """Log-odds [..., K] above each class's threshold: heard + weight * seen - threshold."""
    odds = _heard(audio_prob) + rule.visual_weight * _odds(visual_prob)
    return np.asarray(odds - np.asarray(rule.thresholds, np.float32), np.float32)


def judge(rule: Joint, audio_prob: Floats, visual_prob: Floats, maps: Floats) -> Verdict:
    """The verdict on one frame: audio_prob, visual_prob [K], maps [K, h, w].

    A class that is heard less than `floor` or seen less than `seen_floor` is none, nor one that is behind the best one
    by more than `margin`, nor one whose map peaks within `apart` (parts of the picture's sides) of a better one's.
    """
    odds = joint_odds(rule, audio_prob, visual_prob)
    able = (_heard(audio_prob) >= rule.floor) & (_odds(visual_prob) >= rule.seen_floor)
    prob = np.where(able, 1 / (1 + np.exp(-np.clip(rule.scale * odds, -LIMIT, LIMIT))), 0.0).astype(np.float32)
    known = prob.copy()
    score = np.where(able, odds + np.asarray(rule.thresholds, np.float32), -np.inf)
    candidates = [int(k) for k in np.argsort(-score, kind="stable") if able[k] and odds[k] >= -rule.margin]
    if able.any():
        prob[score < score.max() - rule.margin] = 0.0
    kept: dict[int, list[tuple[int, float]]] = {}
    peaks = {k: _peak(maps[k]) for k in candidates}
    for k in candidates:
        near = next((best for best in kept if _near(peaks[best], peaks[k], rule.apart)), None)
        if near is None:
            kept[k] = []
        else:
            kept[near].append((k, float(known[k])))
            prob[k] = 0.0
    return Verdict(prob=prob, instead_of={k: tuple(others) for k, others in kept.items() if others})


def _heard(prob: Floats) -> Floats:
    return _odds(prob, LEAST_HEARD)


def _odds(prob: Floats, least: float = -LIMIT) -> Floats:
    wide = np.asarray(prob, np.float64)
    with np.errstate(divide="ignore"):
        odds = np.log(wide) - np.log1p(-wide)
    return np.clip(odds, least, LIMIT).astype(np.float32)


def _peak(heat: Floats) -> tuple[float, float]:
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return (row + 0.5) / heat.shape[0], (column + 0.5) / heat.shape[1]


def _near(one: tuple[float, float], other: tuple[float, float], apart: float) -> bool:
    return all(abs(a - b) <= apart for a, b in zip(one, other, strict=True))
