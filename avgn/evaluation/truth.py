"""Reads what an item of a manifest truly shows, as masks on the area on which its sources are scored.

S sources that can be scored: the sounding visible classes of one image, or of each of its frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from avgn.evaluation.canvas import CANVAS, source_mask
from avgn.evaluation.protocols import View
from avgn.runtime.arrays import Array
from avgn.runtime.manifest import Box, Item, Source

NO_SOURCE = "no sounding visible source"
NO_MASK = "no box or mask"
EMPTY_MASK = "empty mask"
OWN: tuple[View, ...] = ("own",)
# data sets whose boxes are (x, y, w, h) in the original annotation
MISREAD = "music-"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Holds the classes of S scorable sources, their masks [S, H, W] (bool, or weights where annotators disagree), the
    pictures that they are scored on (None: the whole canvas) and their areas [S] as shares of H x W. `skipped` says
    why sources or the image are not scored."""

    labels: tuple[int, ...]
    masks: Array
    parts: tuple[int | None, ...]
    areas: Array
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Holds what one image of `num_frames` shows: its targets for each view, and the sets of classes that sound and
    are seen (`present`), sound (`sounding`), are seen (`visible`). `repeated`: two pictures show one sounding class."""

    targets: dict[View, Targets]
    present: frozenset[int]
    sounding: frozenset[int]
    visible: frozenset[int]
    num_frames: int = 1
    repeated: bool = False

    def view(self, view: View) -> View:
        """Return the view, or "own" if both are the same: a single picture is its own canvas."""
        return "own" if view == "whole" and self.num_frames == 1 else view

    def without_masks(self) -> Truth:
        """Return the same without masks, for keeping: those of thousands of images would fill the memory."""
        return replace(self, targets={view: replace(t, masks=t.masks[:0]) for view, t in self.targets.items()})


def read_truth(item: Item, classes: Sequence[str], views: Collection[View] = OWN) -> Truth:
    """Read the truth of an item. Sources of one class in one picture are united, on the whole canvas those of all
    pictures; a source with no box and no mask has no map to score. Raises InputError for a mask that can't be read."""
    index = {name: k for k, name in enumerate(classes)}
    shown = [source for source in item.sources if source.sounding and source.on_screen]
    places = [(index[source.label], source.part) for source in shown]
    targets: dict[View, Targets] = {}
    for view in views:
        twin: View = "whole" if view == "own" else "own"
        shared = not item.parts and view != "misread" and twin in targets
        targets[view] = targets[twin] if shared else _targets(item, shown, index, view)
    return Truth(
        targets=targets,
        present=frozenset(k for k, _ in places),
        sounding=frozenset(index[source.label] for source in item.sources if source.sounding),
        visible=frozenset(index[source.label] for source in item.sources if source.on_screen),
        num_frames=len(item.parts) or 1,
        repeated=len(set(places)) > len({k for k, _ in places}),
    )


def _targets(item: Item, shown: Sequence[Source], index: dict[str, int], view: View) -> Targets:
    groups: dict[tuple[int, int], list[Source]] = {}
    for source in shown:
        part = -1 if view == "whole" or source.part is None else source.part
        groups.setdefault((index[source.label], part), []).append(source)
    labels: list[int] = []
    masks: list[Array] = []
    parts: list[int | None] = []
    skipped: Counter[str] = Counter()
    for (label, part), sources in sorted(groups.items(), key=lambda entry: entry[0]):
        drawn = [source for source in sources if source.boxes or source.mask is not None]
        if view == "misread" and item.dataset.startswith(MISREAD):
            drawn = [replace(source, boxes=tuple(map(_misread, source.boxes))) for source in drawn]
        mask = _mask(drawn, len(item.parts) or 1) if part < 0 else source_mask(drawn)
        if not drawn:
            skipped[NO_MASK] += 1
        elif not mask.any():
            skipped[EMPTY_MASK] += 1
        else:
            labels.append(label)
            masks.append(mask)
            parts.append(None if part < 0 else part)
    if not shown:
        skipped[NO_SOURCE] += 1
    stack = np.stack(masks) if masks else np.zeros((0, *CANVAS), dtype=bool)
    return Targets(
        labels=tuple(labels), masks=stack, parts=tuple(parts), areas=(stack > 0).mean(axis=(1, 2)), skipped=skipped
    )


def _mask(sources: Sequence[Source], num_frames: int) -> Array:
    """Return the masks of sources on the whole canvas [H, num_frames * W]."""
    if num_frames == 1:
        return source_mask(sources)
    masks = [source_mask([source for source in sources if source.part == part]) for part in range(num_frames)]
    return np.concatenate(masks, axis=1)


def _misread(box: Box) -> Box:
    """Misread (x, y, w, h) as the corners (x1, y1, x2, y2), as one protocol does."""
    x1, y1, x2, y2 = box
    return (x1, y1, x2 - x1, y2 - y1)
