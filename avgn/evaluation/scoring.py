"""Scores of a model's maps, source by source and image by image.

N images, S sounding visible classes of one image that have a mask ("sources" here), K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation.bounds import FixedMap, ceiling_scores
from avgn.evaluation.canvas import CANVAS, is_flat, source_mask
from avgn.evaluation.metrics import average_precision, iou, permutation_invariant_ap
from avgn.evaluation.protocols import Protocol
from avgn.runtime.manifest import Item

Array = NDArray[Any]

NO_SOURCE = "no sounding visible source"
NO_MASK = "no box or mask"
EMPTY_MASK = "empty mask"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What one image shows: the classes of its S scorable sources, their masks [S, H, W] bool and areas [S] (shares
    of the canvas), and the sets of classes that sound and are seen (`present`), sound (`sounding`) and are seen
    (`visible`). `skipped` says why sources or the image are not scored."""

    labels: tuple[int, ...]
    masks: Array
    areas: Array
    present: frozenset[int]
    sounding: frozenset[int]
    visible: frozenset[int]
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """One image under one protocol and one way to choose classes.

    ap, iou: [S], 0 where `found` [S] is false; piap: float; `surplus` maps beyond the number of sources.
    """

    ap: Array
    iou: Array
    found: Array
    piap: float
    surplus: int = 0


def read_truth(item: Item, classes: Sequence[str], size: tuple[int, int] = CANVAS) -> Truth:
    """The truth of an item. Sources of one class are united; a source with no box and no mask has no map to score."""
    index = {name: k for k, name in enumerate(classes)}
    shown = [source for source in item.sources if source.sounding and source.on_screen]
    present = sorted({index[source.label] for source in shown})
    labels: list[int] = []
    masks: list[Array] = []
    skipped: Counter[str] = Counter()
    for k in present:
        drawn = [s for s in shown if index[s.label] == k and (s.boxes or s.mask is not None)]
        mask = source_mask(drawn, size)
        if not drawn:
            skipped[NO_MASK] += 1
        elif not mask.any():
            skipped[EMPTY_MASK] += 1
        else:
            labels.append(k)
            masks.append(mask)
    if not present:
        skipped[NO_SOURCE] += 1
    stack = np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)
    return Truth(
        labels=tuple(labels),
        masks=stack,
        areas=stack.mean(axis=(1, 2)),
        present=frozenset(present),
        sounding=frozenset(index[source.label] for source in item.sources if source.sounding),
        visible=frozenset(index[source.label] for source in item.sources if source.on_screen),
        skipped=skipped,
    )


class ImageScorer:
    """Scores one image's maps under several protocols; upsampling and AP are done once and shared.

    maps: {class: map [h, w]} of every class that may be asked for.
    """

    def __init__(self, truth: Truth, maps: dict[int, Array]) -> None:
        self.truth = truth
        self._row = {k: row for row, k in enumerate(maps)}
        self._grids = np.stack(list(maps.values())) if maps else np.zeros((0, 1, 1), dtype=np.float32)
        self._canvas: dict[object, tuple[Array, Array]] = {}
        self._iou: dict[str, tuple[Array, Array]] = {}
        self.flat = frozenset(k for k, flat in zip(maps, is_flat(self._grids), strict=True) if flat)

    def scores(self, protocol: Protocol, chosen: Sequence[int]) -> ImageScores:
        """Scores with the maps of the `chosen` classes only."""
        overlap, _ = self._overlaps(protocol)
        _, precision = self._upsampled(protocol)
        rows = [self._row[k] for k in chosen]
        found = np.array([k in chosen for k in self.truth.labels], dtype=bool)
        own = np.array([precision[self._row[k], s] if k in self._row else 0 for s, k in enumerate(self.truth.labels)])
        return ImageScores(
            ap=np.where(found, own, 0),
            iou=np.where(found, overlap, 0),
            found=found,
            piap=permutation_invariant_ap(precision[rows]),
            surplus=max(0, len(rows) - len(self.truth.labels)),
        )

    def tied(self, protocol: Protocol, chosen: Sequence[int]) -> int:
        """How many of the scored maps had their binarisation decided by the order of equal pixels."""
        _, tied = self._overlaps(protocol)
        return int(sum(tied[s] for s, k in enumerate(self.truth.labels) if k in chosen))

    def _upsampled(self, protocol: Protocol) -> tuple[Array, Array]:
        """(maps [M, H, W], AP [M, S]); the normalisation is monotone, so AP is taken before it can round."""
        key = (protocol.upsample, protocol.canvas)
        if key not in self._canvas:
            maps = protocol.upsample(self._grids, protocol.canvas)
            self._canvas[key] = maps, average_precision(maps, self.truth.masks)
        return self._canvas[key]

    def _overlaps(self, protocol: Protocol) -> tuple[Array, Array]:
        """(IoU [S], tied [S]) of each source's own class; 0 where its map was not given."""
        if protocol.name not in self._iou:
            overlap = np.zeros(len(self.truth.labels))
            tied = np.zeros(len(self.truth.labels), dtype=bool)
            maps = protocol.normalise(self._upsampled(protocol)[0])
            for s, (k, mask) in enumerate(zip(self.truth.labels, self.truth.masks, strict=True)):
                if k in self._row:
                    binary, tied[s] = protocol.binarise(maps[self._row[k]], mask)
                    overlap[s] = iou(binary, mask)
            self._iou[protocol.name] = overlap, tied
        return self._iou[protocol.name]


def fixed_scores(fixed: FixedMap, truth: Truth, protocol: Protocol) -> ImageScores:
    """The scores of one map that does not depend on the image, given for every source."""
    precision = fixed.average_precision(truth.masks)
    return ImageScores(
        ap=precision,
        iou=fixed.iou(truth.masks, protocol),
        found=np.ones(len(precision), dtype=bool),
        piap=float(precision.mean()),
    )


def chance_scores(random: FixedMap, truth: Truth, protocol: Protocol) -> ImageScores:
    """The scores of chance: AP is the mask's share of the canvas, IoU that of a random map."""
    precision = truth.areas
    return ImageScores(
        ap=precision,
        iou=random.iou(truth.masks, protocol),
        found=np.ones(len(precision), dtype=bool),
        piap=float(precision.mean()),
    )


def best_scores(truth: Truth, grid: tuple[int, int], protocol: Protocol) -> ImageScores:
    """The scores of maps on the model's grid that know the masks."""
    precision, overlap = ceiling_scores(truth.masks, grid, protocol)
    return ImageScores(
        ap=precision,
        iou=overlap,
        found=np.ones(len(overlap), dtype=bool),
        piap=float(precision.mean()),
    )
