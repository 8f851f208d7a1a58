"""Compares graphs with the core model: on rendered scenes before a bundle is kept, on anything later.

Legend: B batch, T samples, H x W pixels, K maps, h x w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation import evaluate
from avgn.export.samples import InputBatch
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.contract import ALL_OUTPUTS, TOLERANCES
from avgn.runtime.engines import Engine
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.image import resize
from avgn.runtime.manifest import Manifest
from avgn.scenes import SceneConfig, render_scene

SCENE_RATE = 22_050
SCENE_SEED = 20_231
BATCHES = (1, 2, 5, 8)
# the pictures of the batches are larger by this much, in pixels
GROWTH = ((0, 0), (32, 0), (0, 64), (0, 0))


def compare(core: Engine, engine: Engine, batches: Sequence[InputBatch]) -> dict[str, float]:
    """Measure how far an engine's outputs are from the core's, for the chain of both halves.

    Returns max_abs_* and mean_abs_* of every output (parts of the largest value where that exceeds 1: the released
    variant's scores do), cosine_maps (of all K maps of a sample as one vector; the worst sample), cosine_maps_mean and
    scenes.
    """
    largest: dict[str, list[float]] = {name: [] for name in ALL_OUTPUTS}
    mean: dict[str, list[float]] = {name: [] for name in ALL_OUTPUTS}
    cosine: list[NDArray[np.float64]] = []
    for batch in batches:
        expected, found = _chain(core, batch), _chain(engine, batch)
        for name in ALL_OUTPUTS:
            errors = np.abs(found[name] - expected[name]) / _size(expected[name])
            largest[name].append(float(errors.max()))
            mean[name].append(float(errors.mean()))
        cosine.append(_cosines(found["maps"], expected["maps"]))
    # a NaN anywhere must fail the comparison, not vanish in a maximum
    cosines = np.concatenate(cosine)
    measured = {f"max_abs_{name}": float(np.max(values)) for name, values in largest.items()}
    measured |= {f"mean_abs_{name}": float(np.mean(values)) for name, values in mean.items()}
    return measured | {
        "cosine_maps": float(np.min(cosines)),
        "cosine_maps_mean": float(np.mean(cosines)),
        "scenes": float(len(cosines)),
    }


def check_tolerance(metrics: dict[str, float], precision: str) -> None:
    """Raise FailureError when what `compare` measured is beyond what a precision may cost."""
    tolerance = TOLERANCES.get(precision)
    largest = None if tolerance is None else tolerance.max_abs
    # also where the tolerance is a cosine, what is not finite is wrong
    allowed = float(np.finfo(np.float32).max) if largest is None else largest
    for name in ALL_OUTPUTS:
        value = metrics[f"max_abs_{name}"]
        if not value <= allowed:
            raise FailureError(
                f"the {precision} graphs differ from the model: max_abs_{name} is {value:.3g}, allowed is {allowed:.0e}"
            )
    if tolerance is None or tolerance.cosine is None:
        return
    name, least = tolerance.cosine
    if not metrics[name] >= least:
        raise FailureError(
            f"the {precision} graphs differ from the model: {name} is {metrics[name]:.5f}, at least {least} is asked "
            "for"
        )


def accuracy(engine: Engine, manifest: Manifest) -> dict[str, float]:
    """CIoU@0.3 and CAP in percent, with the classes given, under the adaptive protocol.

    Raises InputError for a manifest with nothing to score.
    """
    check_scorable(manifest)
    metrics: dict[str, Any] = evaluate(engine, manifest, ["adaptive"], ["given"], bootstrap=0)[0]["metrics"]
    return {"CIoU@0.3": float(metrics["CIoU@0.3"]), "CAP": float(metrics["CAP"])}


def check_scorable(manifest: Manifest) -> None:
    """Raise InputError for a manifest whose sources can't be scored, any of them."""
    sources = (source for item in manifest.items for source in item.sources)
    if not any(each.sounding and each.on_screen and (each.boxes or each.mask is not None) for each in sources):
        raise InputError(
            f"{manifest.path} has no source that sounds, is seen and has a box or a mask: accuracy needs some"
        )


def rendered_batches(info: BundleInfo, counts: Sequence[int] = BATCHES) -> list[InputBatch]:
    """Batches of rendered scenes of several sizes for a model."""
    found, start = [], 0
    for at, count in enumerate(counts):
        found.append(render_batch(info, count, start, GROWTH[at % len(GROWTH)]))
        start += count
    return found


def audio_difference(core: Engine, engine: Engine) -> float:
    """Return the largest difference of sources between two engines on rendered scenes, in the measure of `compare`."""
    found = [0.0]
    for batch in rendered_batches(core.info):
        expected, other = (one.run_audio(batch.waveform)["sources"] for one in (core, engine))
        found.append(float((np.abs(other - expected) / _size(expected)).max()))
    return float(np.max(found))


def render_batch(info: BundleInfo, count: int, start: int = 0, growth: tuple[int, int] = (0, 0)) -> InputBatch:
    """`count` rendered scenes, from the `start`-th on, for the model's sizes (pictures larger by `growth` pixels)."""
    config = SceneConfig(split="val", sources=(0, 3))
    scenes = [render_scene(config, SCENE_SEED, start + index) for index in range(count)]
    length = info.window_samples
    sounds = [fit_window(resample(scene.audio, SCENE_RATE, info.sample_rate), length) for scene in scenes]
    size = (info.image_size[0] + growth[0], info.image_size[1] + growth[1])
    frames = [resize(scene.frame, size) for scene in scenes]
    return InputBatch(waveform=np.stack(sounds).astype(np.float32), image=np.stack(frames))


def _chain(engine: Engine, batch: InputBatch) -> dict[str, NDArray[np.float32]]:
    heard = engine.run_audio(batch.waveform)
    return heard | engine.run_image(batch.image, heard["sources"])


def _size(values: NDArray[np.float32]) -> float:
    return max(1.0, float(np.abs(values).max()))


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine between the maps of each sample, all K of them as one vector: [B]."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (one, other))
    product = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.maximum(product, 1e-12)
