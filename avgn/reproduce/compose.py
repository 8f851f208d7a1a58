"""Makes items of several others: pictures side by side, sounds summed, truth kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, Part

MAX_DRAWS = 100


def compose(manifest: Manifest, num_frames: int, items: int, seed: int = 0) -> Manifest:
    """Draw `items` items of `num_frames` pictures each, of different classes, from those with one picture.

    Raises InputError when the manifest hasn't enough of them.
    """
    single = [item for item in manifest.items if item.frame is not None and item.audio is not None]
    if len(single) < num_frames or len({s.label for item in single for s in item.sources}) < num_frames:
        raise InputError(
            f"{manifest.path} has too few items or classes to set {num_frames} side by side: import more of "
            "the data set"
        )
    rng = np.random.default_rng((seed, num_frames))
    made: dict[str, Item] = {}
    for _ in range(MAX_DRAWS * items):
        if len(made) == items:
            break
        chosen: list[Item] = []
        taken: set[str] = set()
        for index in rng.permutation(len(single)):
            labels = {source.label for source in single[index].sources}
            if labels and not labels & taken:
                chosen.append(single[index])
                taken |= labels
            if len(chosen) == num_frames:
                break
        if len(chosen) == num_frames:
            item = _joined(chosen)
            made.setdefault(item.id, item)
    return Manifest(path=manifest.path, classes=manifest.classes, items=tuple(made.values()))


def _joined(chosen: list[Item]) -> Item:
    parts = []
    for item in chosen:
        assert item.frame is not None and item.audio is not None
        parts.append(Part(frame=item.frame, audio=item.audio))
    return Item(
        id="+".join(item.id for item in chosen),
        sources=tuple(replace(source, part=place) for place, item in enumerate(chosen) for source in item.sources),
        split=chosen[0].split,
        dataset=f"{chosen[0].dataset}-{len(chosen)}",
        video=chosen[0].video,
        parts=tuple(parts),
    )
