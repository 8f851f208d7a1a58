"""The sound-decides test: of two visible objects, does the heat follow the one that sounds?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from avgn.evaluation.canvas import resize_mask, upsample_bilinear
from avgn.runtime.arrays import Array
from avgn.runtime.audio import fit_window
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.image import resize


@dataclass(frozen=True, kw_only=True)
class SwapPair:
    """Holds one frame [H, W, 3] uint8 RGB with two visible objects a and b: their labels and masks [H, W] bool, and the
    sounds [T] float32 at the model's rate in which only a, only b sounds. Each pair gives two cases.

    `avgn.scenes.render_swap` gives objects of the same fields.
    """

    frame: Array
    labels: tuple[str, str]
    masks: tuple[Array, Array]
    audio_a: Array
    audio_b: Array


class AnyPair(Protocol):
    """Accepts any object with the fields of a SwapPair."""

    @property
    def frame(self) -> Array: ...
    @property
    def labels(self) -> tuple[str, str]: ...
    @property
    def masks(self) -> tuple[Array, Array]: ...
    @property
    def audio_a(self) -> Array: ...
    @property
    def audio_b(self) -> Array: ...


def sound_decides(
    engine: Engine, pairs: Sequence[AnyPair], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, float | int]:
    """Measure the percentage of cases and of pairs that the sound decides, on the map of the audio head's own top
    class.

    "hotter": cases in which the mean heat on the sounding object's mask exceeds that on the silent one's;
    "swapped": pairs in which swapping the sounds swaps the hotter object; "swapped_right": and both were right;
    "top_class": cases in which the top class is the sounding one. Chance: 50, 50, 25. Equal heat is no answer.
    Raises InputError without pairs, for an empty mask, and for a model without an audio head.
    """
    if not pairs:
        raise InputError("no swap pairs were given: make scenes with two visible objects")
    if not engine.info.has_presence:
        raise InputError("the model has no audio head that names a class: the sound-decides test needs one")
    answers = np.zeros((len(pairs), 2))
    named = np.zeros((len(pairs), 2), dtype=bool)
    for n, pair in enumerate(pairs):
        answers[n], named[n] = _answers(engine, pair, n)
        if progress:
            progress(n + 1, len(pairs))
    right = np.stack([answers[:, 0] > 0, answers[:, 1] < 0], axis=1)
    return {
        "hotter": 100 * float(right.mean()),
        "swapped": 100 * float((answers[:, 0] * answers[:, 1] < 0).mean()),
        "swapped_right": 100 * float(right.all(axis=1).mean()),
        "top_class": 100 * float(named.mean()),
        "cases": right.size,
        "pairs": len(pairs),
    }


def _answers(engine: Engine, pair: AnyPair, number: int) -> tuple[Array, Array]:
    """Return the heat on a minus the heat on b [2] for sound a and for sound b, and whether the top class was right
    [2]."""
    info = engine.info
    size = pair.frame.shape[:2]
    masks = [resize_mask(np.asarray(mask) > 0, size) for mask in pair.masks]
    if not all(mask.any() for mask in masks):
        raise InputError(f"swap pair {number} has an empty mask: give pairs whose objects are both seen")
    waveforms = np.stack(
        [fit_window(np.asarray(a, np.float32), info.window_samples) for a in (pair.audio_a, pair.audio_b)]
    )
    image = np.repeat(resize(pair.frame, info.image_size)[None], 2, axis=0)
    heard = engine.run_audio(waveforms)
    maps = engine.run_image(image, heard["sources"])["maps"]
    top = heard["audio_prob"].argmax(axis=1)
    heat = upsample_bilinear(maps[np.arange(2), top], size)
    difference = np.array([float(h[masks[0]].mean() - h[masks[1]].mean()) for h in heat])
    return difference, np.array([info.classes[k] == name for k, name in zip(top, pair.labels, strict=True)])
