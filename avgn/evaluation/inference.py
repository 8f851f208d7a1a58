"""Running a model over a manifest.

A model is anything with the runtime's engine interface, so a checkpoint and a bundle are evaluated by one code.
B batch, K classes, h x w the map grid, T samples of the model's window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.reading import read_clip, read_frame
from avgn.runtime.bundle import BundleInfo
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.manifest import Item, Manifest

Array = NDArray[Any]
Progress = Callable[[int, int], None]

NO_FRAME = "no frame"
NO_AUDIO = "no audio"
UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says about N items: maps [N, K, h, w] float32, audio_prob and visual_prob [N, K] float32.

    Without presence heads the probabilities are empty ([N, 0]). `skipped` counts the items left out, by reason.
    """

    items: tuple[Item, ...]
    maps: Array
    audio_prob: Array
    visual_prob: Array
    skipped: dict[str, int] = field(default_factory=dict)


def check_classes(info: BundleInfo, manifest: Manifest) -> None:
    """Raise InputError that names the difference unless model and manifest have the same class list."""
    model, data = list(info.classes), list(manifest.classes)
    if model == data or has_shared_map(info):
        return
    unknown, absent = sorted(set(data) - set(model)), sorted(set(model) - set(data))
    if not unknown and not absent:
        detail = "the same names stand in another order"
    else:
        detail = "; ".join(
            f"only the {who} has {', '.join(names)}"
            for who, names in (("manifest", unknown), ("model", absent))
            if names
        )
    raise InputError(f"the classes of {manifest.path} are not the model's: {detail}: use data made for this model")


def has_shared_map(info: BundleInfo) -> bool:
    """Whether the model gives one map for the whole mixture."""
    return not info.has_presence and len(info.classes) == 1


def predict(
    engine: Engine,
    manifest: Manifest,
    *,
    batch_size: int = 16,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Run the model on every item that has a frame and a sound.

    An unreadable file raises InputError that names it, or is a counted skip with `skip_bad`. Items without a
    frame or without audio (video truth, labels only) are counted skips. Raises InputError for other classes than
    the model's and when nothing is left; FailureError when the model gives NaN. `progress(done, total)` is
    called after each batch.
    """
    check_classes(engine.info, manifest)
    skipped: Counter[str] = Counter()
    kept: list[Item] = []
    outputs: list[tuple[Array, Array, Array]] = []
    done = 0
    for items, waveforms, images in batches(engine.info, manifest.items, batch_size, skip_bad, skipped):
        outputs.append(_run(engine, items, np.stack(waveforms), np.stack(images)))
        kept += items
        done = len(kept) + sum(skipped.values())
        if progress:
            progress(done, len(manifest.items))
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it lists no items"
        raise InputError(
            f"{manifest.path} has no item with a readable frame and sound ({reasons}): nothing to evaluate"
        )
    if progress and done < len(manifest.items):
        progress(len(manifest.items), len(manifest.items))
    maps, audio, visual = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return Predictions(items=tuple(kept), maps=maps, audio_prob=audio, visual_prob=visual, skipped=dict(skipped))


def batches(
    info: BundleInfo, items: Sequence[Item], batch_size: int, skip_bad: bool, skipped: Counter[str]
) -> Iterator[tuple[list[Item], list[Array], list[Array]]]:
    samples = info.window_samples
    batch: tuple[list[Item], list[Array], list[Array]] = ([], [], [])
    for item in items:
        if item.frame is None or item.audio is None:
            skipped[NO_FRAME if item.frame is None else NO_AUDIO] += 1
            continue
        try:
            waveform = read_clip(item.audio, info.sample_rate, samples)
            image = read_frame(item.frame, info.image_size)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"item {item.id!r}: {error}") from None
            skipped[UNREADABLE] += 1
            continue
        batch[0].append(item)
        batch[1].append(waveform)
        batch[2].append(image)
        if len(batch[0]) == batch_size:
            yield batch
            batch = ([], [], [])
    if batch[0]:
        yield batch


def _run(engine: Engine, items: list[Item], waveforms: Array, images: Array) -> tuple[Array, Array, Array]:
    heard = engine.run_audio(waveforms.astype(np.float32))
    seen = engine.run_image(images, heard["sources"])
    empty = np.zeros((len(items), 0), dtype=np.float32)
    presence = engine.info.has_presence
    maps = np.asarray(seen["maps"], dtype=np.float32)
    audio = np.asarray(heard["audio_prob"], dtype=np.float32) if presence else empty
    visual = np.asarray(seen["visual_prob"], dtype=np.float32) if presence else empty
    for n, item in enumerate(items):
        if not all(np.isfinite(values[n]).all() for values in (maps, audio, visual)):
            raise FailureError(f"the model gave NaN or infinity for item {item.id!r}: check the model's weights")
    return maps, audio, visual
