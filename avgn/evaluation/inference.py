"""Runs a model over a manifest.

A model is anything with the runtime's engine interface, so a checkpoint and a bundle are evaluated by one code.
B batch, K classes, h x w the map grid (w of all pictures side by side), T samples of the model's window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from avgn.evaluation.map_kinds import why_no_classes
from avgn.runtime.arrays import Array
from avgn.runtime.bundle import BundleInfo
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.manifest import Item, Manifest
from avgn.runtime.reading import read_clip, read_frame

Progress = Callable[[int, int], None]
Prior = Callable[[Array], Array]

NO_FRAME = "no frame"
NO_AUDIO = "no audio"
UNREADABLE = "unreadable"
CANVAS_INPUT, CROPS_INPUT = PAIR_INPUTS = ("canvas", "crops")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Holds what a model says about N items: maps (N of [K, h, w] float32), audio_prob and visual_prob [N, K] float32.

    Without presence heads the probabilities are empty ([N, 0]). `pieces` [N] counts the maps that were made apart and
    stand side by side in one; `priors` holds N maps [h, w] of an object prior where one was given. `skipped` counts
    the items left out, by reason; `notes` says how pairs were put in.
    """

    items: tuple[Item, ...]
    maps: tuple[Array, ...]
    audio_prob: Array
    visual_prob: Array
    pieces: tuple[int, ...]
    priors: tuple[Array, ...] | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ItemBatch:
    """Holds B items of as many pictures each: waveforms [T] and, item by item, the pictures [H, W, 3] uint8 RGB."""

    items: list[Item] = field(default_factory=list)
    waveforms: list[Array] = field(default_factory=list)
    frames: list[tuple[Array, ...]] = field(default_factory=list)


def check_classes(info: BundleInfo, manifest: Manifest) -> None:
    """Raise InputError that names the difference unless model and manifest have the same class list.

    A model whose maps say nothing about classes goes with any.
    """
    model, data = list(info.classes), list(manifest.classes)
    if model == data or why_no_classes(info):
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


def predict(
    engine: Engine,
    manifest: Manifest,
    *,
    batch_size: int = 16,
    skip_bad: bool = False,
    pair_input: str = CANVAS_INPUT,
    object_prior: Prior | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Run the model on every item that has pictures and sounds.

    Items of several pictures hear the sum of their sounds; `pair_input` "canvas" shows the pictures side by side as
    one image, "crops" each alone. An engine that refuses other widths gets crops, which is noted.
    object_prior: picture [H, W, 3] uint8 -> map [h, w], run on single frames.
    An unreadable file raises InputError that names it, or is a counted skip with `skip_bad`. Items without a
    frame or without audio (video truth, labels only) are counted skips. Raises InputError for other classes than
    the model's and when nothing is left; FailureError when the model gives NaN. `progress(done, total)` is
    called after each batch.
    """
    check_classes(engine.info, manifest)
    runner = _Runner(engine, pair_input)
    skipped: Counter[str] = Counter()
    kept: list[Item] = []
    outputs: list[tuple[Array, Array, Array]] = []
    pieces: list[int] = []
    priors: list[Array] = []
    done = 0
    for batch in read_batches(engine.info, manifest.items, batch_size, skip_bad, skipped):
        outputs.append(runner.run(batch))
        pieces += [runner.pieces(len(frames)) for frames in batch.frames]
        if object_prior is not None:
            priors += [_prior(object_prior, item, p) for item, p in zip(batch.items, batch.frames, strict=True)]
        kept += batch.items
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
    return Predictions(
        items=tuple(kept),
        maps=tuple(one for maps, _, _ in outputs for one in maps),
        audio_prob=np.concatenate([audio for _, audio, _ in outputs]),
        visual_prob=np.concatenate([visual for _, _, visual in outputs]),
        pieces=tuple(pieces),
        priors=tuple(priors) if object_prior is not None else None,
        skipped=dict(skipped),
        notes=tuple(runner.notes),
    )


def batches(
    info: BundleInfo, items: Sequence[Item], batch_size: int, skip_bad: bool, skipped: Counter[str]
) -> Iterator[tuple[list[Item], list[Array], list[Array]]]:
    """Yield (items, waveforms, images) of the items of one picture; the others are left out."""
    single = [item for item in items if not item.parts]
    for batch in read_batches(info, single, batch_size, skip_bad, skipped):
        yield batch.items, batch.waveforms, [frames[0] for frames in batch.frames]


def read_batches(
    info: BundleInfo, items: Sequence[Item], batch_size: int, skip_bad: bool, skipped: Counter[str]
) -> Iterator[ItemBatch]:
    """Yield the items in their order, those of one batch with as many pictures each."""
    samples = info.window_samples
    batch = ItemBatch()
    for item in items:
        if not item.frames or not item.sounds:
            skipped[NO_AUDIO if item.frames else NO_FRAME] += 1
            continue
        try:
            waveform = sum(read_clip(audio, info.sample_rate, samples) for audio in item.sounds)
            frames = tuple(read_frame(frame, info.image_size) for frame in item.frames)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"item {item.id!r}: {error}") from None
            skipped[UNREADABLE] += 1
            continue
        if batch.items and (len(batch.items) == batch_size or len(frames) != len(batch.frames[0])):
            yield batch
            batch = ItemBatch()
        batch.items.append(item)
        batch.waveforms.append(np.asarray(waveform, dtype=np.float32))
        batch.frames.append(frames)
    if batch.items:
        yield batch


class _Runner:
    """Runs batches, pictures of pairs side by side or one by one."""

    def __init__(self, engine: Engine, pair_input: str) -> None:
        if pair_input not in PAIR_INPUTS:
            raise InputError(f"pair input {pair_input!r} is not known: choose from {', '.join(PAIR_INPUTS)}")
        self.engine = engine
        self.notes: list[str] = []
        self._pair_input = pair_input
        self._inputs: dict[int, str] = {}

    def pieces(self, num_frames: int) -> int:
        """Count the maps of an item that were made apart."""
        return num_frames if self._inputs.get(num_frames) == CROPS_INPUT else 1

    def run(self, batch: ItemBatch) -> tuple[Array, Array, Array]:
        """Return maps [B, K, h, w], audio_prob and visual_prob [B, K] (p^v: the largest of the pictures shown
        alone)."""
        heard = self.engine.run_audio(np.stack(batch.waveforms))
        images = np.stack([np.stack(frames) for frames in batch.frames])
        num_frames = images.shape[1]
        if num_frames > 1 and num_frames not in self._inputs:
            self._inputs[num_frames] = self._choose(images[:1], heard["sources"][:1])
        if self.pieces(num_frames) == 1:
            seen = [self.engine.run_image(_canvas(images), heard["sources"])]
        else:
            alone = (np.ascontiguousarray(images[:, part]) for part in range(num_frames))
            seen = [self.engine.run_image(image, heard["sources"]) for image in alone]
        maps = np.concatenate([np.asarray(one["maps"], dtype=np.float32) for one in seen], axis=-1)
        audio = visual = np.zeros((len(batch.items), 0), dtype=np.float32)
        if self.engine.info.has_presence:
            audio = np.asarray(heard["audio_prob"], dtype=np.float32)
            visual = np.asarray([one["visual_prob"] for one in seen], dtype=np.float32).max(axis=0)
        for n, item in enumerate(batch.items):
            if not all(np.isfinite(values[n]).all() for values in (maps, audio, visual)):
                raise FailureError(f"the model gave NaN or infinity for item {item.id!r}: check the model's weights")
        return maps, audio, visual

    def _choose(self, images: Array, sources: Array) -> str:
        """Choose how items of as many pictures as images [1, n, H, W, 3] are put in."""
        chosen, refusal = self._pair_input, ""
        if chosen == CANVAS_INPUT:
            try:
                self.engine.run_image(_canvas(images), sources)
            except Exception as error:  # every engine refuses a width in its own words
                chosen = CROPS_INPUT
                refusal = f" (the engine refused the canvas: {type(error).__name__})"
        self.notes.append(f"items of {images.shape[1]} pictures were put in as {chosen}{refusal}")
        return chosen


def _canvas(images: Array) -> Array:
    """Join pictures side by side: [B, n, H, W, 3] -> [B, H, n * W, 3]."""
    return np.ascontiguousarray(np.concatenate(list(images.swapaxes(0, 1)), axis=2))


def _prior(object_prior: Prior, item: Item, frames: tuple[Array, ...]) -> Array:
    prior = np.asarray(object_prior(frames[0]), dtype=np.float32)
    if prior.ndim != 2 or not prior.size or not np.isfinite(prior).all():
        raise FailureError(f"the object prior of item {item.id!r} is no finite map [h, w] but {prior.shape}")
    return prior
