"""Scores a model's maps, source by source and image by image.

S scorable sources of one image, M of its maps, K classes, H x W what a source is scored on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avgn.evaluation.bounds import FixedMap, ceiling_scores
from avgn.evaluation.canvas import lay_out, part_of
from avgn.evaluation.metrics import (
    average_precision,
    best_assignment,
    confidence,
    iou,
    min_max,
    permutation_invariant_ap,
    quiet_share,
    softmax,
)
from avgn.evaluation.protocols import Protocol
from avgn.evaluation.truth import Targets, Truth
from avgn.runtime.arrays import Array

# maps at a time: few enough for the cache of a core
BLOCK_MAPS = 4


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """Holds the scores of one image under one protocol and one way to choose classes.

    ap, iou: [S], 0 where `found` [S] is false; piap: float; `maps`: the key of each source's map in the scorer, for
    those found; `surplus` maps beyond the number of sources; how many scored maps were `flat`, and of how many the
    order of equal pixels decided the binarisation (`tied`).
    """

    ap: Array
    iou: Array
    found: Array
    piap: float
    maps: tuple[int, ...] = ()
    surplus: int = 0
    flat: int = 0
    tied: int = 0


class ImageScorer:
    """Scores one image's maps under several protocols; upsampling and AP are done once and shared.

    maps: {class: map [h, w]} of every class that may be asked for; pieces as in `lay_out`; prior: a map [h, w] of
    where objects are, for the protocols that mix one in. matched: the keys of `maps` are no classes, and a source's
    map is the one that the assignment of PIAP gives it.
    """

    def __init__(
        self,
        truth: Truth,
        maps: dict[int, Array],
        *,
        matched: bool = False,
        pieces: int = 1,
        prior: Array | None = None,
    ) -> None:
        self.truth = truth
        self._matched = matched
        self._row = {k: row for row, k in enumerate(maps)}
        self._grids = np.stack(list(maps.values())) if maps else np.zeros((0, 1, pieces), dtype=np.float32)
        self._pieces = pieces
        self._prior = prior
        self._canvas: dict[object, Array] = {}
        self._precision: dict[object, Array] = {}
        self._overlap: dict[object, tuple[Array, Array, Array]] = {}

    def scores(self, protocol: Protocol, chosen: Sequence[int], chance: Array) -> ImageScores:
        """Score the maps of the `chosen` keys only; chance [S]: the IoU that a flat map is given."""
        targets = self.truth.targets[protocol.view]
        precision = self._precisions(protocol, targets)
        owners = self._owners(targets, precision)
        overlap, tied, flat = self._overlaps(protocol, targets, owners, chance)
        found = np.array([k in chosen for k in owners], dtype=bool)
        own = np.array([0 if k is None else precision[self._row[k], s] for s, k in enumerate(owners)])
        # the pictures of a pair that show one class share its map
        rows = [self._row[k] for k in chosen for _ in range(max(1, owners.count(k)))]
        return ImageScores(
            ap=np.where(found, own, 0),
            iou=np.where(found, overlap, 0),
            found=found,
            piap=permutation_invariant_ap(precision[rows]),
            maps=tuple(k for k in owners if k is not None and k in chosen),
            surplus=max(0, len(rows) - len(targets.labels)),
            flat=int((flat & found).sum()),
            tied=int((tied & found).sum()),
        )

    def _owners(self, targets: Targets, precision: Array) -> list[int | None]:
        """Return the key of each source's map, None where there is none."""
        if self._matched:
            keys = list(self._row)
            return [keys[row] if row >= 0 else None for row in best_assignment(precision)]
        return [k if k in self._row else None for k in targets.labels]

    def _maps(self, protocol: Protocol) -> tuple[object, Array]:
        """Return (the key under which they are cached, maps [M, H, n * W] before the normalisation)."""
        mixed = protocol.alpha < 1 and self._prior is not None
        key = (protocol.upsample, protocol.alpha if mixed else 1.0)
        if key not in self._canvas:
            maps = lay_out(self._grids, protocol.upsample, self.truth.num_frames, self._pieces)
            if mixed and self._prior is not None:
                prior = min_max(protocol.upsample(self._prior[None], (maps.shape[1], maps.shape[2])))[0]
                maps = protocol.alpha * min_max(maps)[0] + (1 - protocol.alpha) * prior
            self._canvas[key] = maps
        return key, self._canvas[key]

    def _precisions(self, protocol: Protocol, targets: Targets) -> Array:
        """Compute AP [M, S]; the normalisation is monotone, so AP is taken before it can round."""
        kept_under, maps = self._maps(protocol)
        key = (kept_under, self.truth.view(protocol.view))
        if key not in self._precision:
            precision = np.zeros((len(maps), len(targets.labels)))
            for part in set(targets.parts):
                columns = [s for s, own in enumerate(targets.parts) if own == part]
                precision[:, columns] = average_precision(part_of(maps, part), targets.masks[columns])
            self._precision[key] = precision
        return self._precision[key]

    def _overlaps(
        self, protocol: Protocol, targets: Targets, owners: Sequence[int | None], chance: Array
    ) -> tuple[Array, Array, Array]:
        """Compute (IoU, tied, flat), each [S], of each source's own map; 0 where it has none."""
        kept_under, maps = self._maps(protocol)
        key = (kept_under, self.truth.view(protocol.view), protocol.binarise)
        if key not in self._overlap:
            overlap = np.zeros(len(targets.labels))
            tied = np.zeros(len(targets.labels), dtype=bool)
            flat = np.zeros(len(targets.labels), dtype=bool)
            for s, (k, mask, part) in enumerate(zip(owners, targets.masks, targets.parts, strict=True)):
                if k is None:
                    continue
                score = part_of(maps[self._row[k]], part)
                flat[s] = score.max() == score.min()
                if flat[s] and protocol.flat_is_chance:
                    overlap[s] = chance[s]
                else:
                    binary, tied[s] = protocol.binary(score, mask)
                    overlap[s] = iou(binary, mask)
            self._overlap[key] = overlap, tied, flat
        return self._overlap[key]


def silent_shares(
    protocol: Protocol, maps: Array, silent: Sequence[int], *, num_frames: int = 1, pieces: int = 1, tau: float = 1.0
) -> Array:
    """Return the share of quiet pixels in the maps of the silent classes, of all maps [K, h, w] of an image.

    silent: the indices [S] of the silent classes. num_frames, pieces: as in `lay_out`. tau: what maps are divided by
    before the softmax over the classes, if the protocol takes one. Returns [S] shares in 0..1.
    """
    if protocol.silence == "softmax":
        canvas = lay_out(maps, protocol.upsample, num_frames, pieces)
        return quiet_share(softmax(canvas / tau)[list(silent)])
    shares = [np.zeros(0)]
    for first in range(0, len(silent), BLOCK_MAPS):
        block = maps[list(silent[first : first + BLOCK_MAPS])]
        shares.append(quiet_share(protocol.normalise(lay_out(block, protocol.upsample, num_frames, pieces))))
    return np.concatenate(shares)


def map_confidence(protocol: Protocol, maps: Array, *, num_frames: int = 1, pieces: int = 1) -> Array:
    """Return the confidence [M] of maps [M, h, w] after the protocol's normalisation."""
    return confidence(protocol.normalise(lay_out(maps, protocol.upsample, num_frames, pieces)))


def fixed_scores(fixed: FixedMap, targets: Targets, protocol: Protocol) -> ImageScores:
    """Return the scores of one map that does not depend on the image, given for every source."""
    return _given(fixed.average_precision(targets.masks), fixed.iou(targets.masks, protocol))


def chance_scores(random: FixedMap, targets: Targets, protocol: Protocol) -> ImageScores:
    """Return the scores of chance: AP is the mask's share of what it is scored on, IoU that of a random map."""
    return _given(targets.areas, random.iou(targets.masks, protocol))


def best_scores(
    targets: Targets, grid: tuple[int, int], protocol: Protocol, *, num_frames: int = 1, pieces: int = 1
) -> ImageScores:
    """Return the scores of maps that know the masks, free on the grid (h, w) of what a source is scored on."""
    return _given(*ceiling_scores(targets.masks, grid, protocol, num_frames=num_frames, pieces=pieces))


def _given(precision: Array, overlap: Array) -> ImageScores:
    return ImageScores(ap=precision, iou=overlap, found=np.ones(len(overlap), dtype=bool), piap=float(precision.mean()))
