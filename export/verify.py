"""Compares the graphs of a bundle with the core model on rendered scenes, before the bundle is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.engine import TorchEngine
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.engines import Engine
from avgn.runtime.errors import FailureError
from avgn.runtime.image import resize
from avgn.scenes import SceneConfig, render_scene

SCENE_RATE = 22_050
SCENE_SEED = 20_231
TOLERANCE = {"fp32": 1e-5}
BATCHES = (1, 2, 5, 8)
# the pictures of the batches are larger by this much, in pixels
GROWTH = ((0, 0), (32, 0), (0, 64), (0, 0))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One batch of both halves: waveform [B,T] float32 and image [B,H,W,3] uint8."""

    waveform: NDArray[np.float32]
    image: NDArray[np.uint8]


def verify(core: TorchEngine, engine: Engine, precision: str, batches: Sequence[int] = BATCHES) -> dict[str, float]:
    """Measure the largest and the mean difference of every output over batches of rendered scenes.

    Each graph gets the core's own inputs, and the maps are compared for the chain of both halves too.
    Where values exceed 1 (the released variant's scores do), differences are parts of the largest of them.
    Returns {metric: value}. Raises FailureError when a difference exceeds the tolerance of `precision`.
    """
    largest: dict[str, list[float]] = {}
    mean: list[float] = []
    cosine: list[float] = []
    start = 0
    for at, count in enumerate(batches):
        inputs = render_inputs(core, count, start, GROWTH[at % len(GROWTH)])
        start += count
        heard, expected_heard = engine.run_audio(inputs.waveform), core.run_audio(inputs.waveform)
        expected = core.run_image(inputs.image, expected_heard["sources"])
        chained = engine.run_image(inputs.image, heard["sources"])
        for name, found, truth in (
            ("max_abs_sources", heard["sources"], expected_heard["sources"]),
            ("max_abs_audio_prob", heard["audio_prob"], expected_heard["audio_prob"]),
            ("max_abs_maps", chained["maps"], expected["maps"]),
            ("max_abs_visual_prob", chained["visual_prob"], expected["visual_prob"]),
        ):
            largest.setdefault(name, []).append(float(np.abs(found - truth).max()) / _size(truth))
        mean.append(float(np.abs(chained["maps"] - expected["maps"]).mean()) / _size(expected["maps"]))
        cosine.append(_cosine(chained["maps"], expected["maps"]))
    # a NaN anywhere must fail the comparison, not vanish in a maximum
    metrics = {name: float(np.max(values)) for name, values in largest.items()}
    metrics |= {
        "mean_abs_maps": float(np.mean(mean)),
        "cosine_maps": float(np.min(cosine)),
        "scenes": float(start),
    }
    tolerance = TOLERANCE[precision]
    for name in largest:
        if not metrics[name] <= tolerance:
            raise FailureError(
                f"the exported graphs differ from the model: {name} is {metrics[name]:.3g}, "
                f"allowed is {tolerance:.0e}; no bundle was written"
            )
    return metrics


def render_inputs(core: TorchEngine, count: int, start: int = 0, growth: tuple[int, int] = (0, 0)) -> Inputs:
    """`count` rendered scenes, from the `start`-th on, for the model's sizes (pictures larger by `growth` pixels)."""
    info = core.info
    length = info.window_samples
    config = SceneConfig(split="val", sources=(0, 3))
    scenes = [render_scene(config, SCENE_SEED, start + index) for index in range(count)]
    sounds = [fit_window(resample(scene.audio, SCENE_RATE, info.sample_rate), length) for scene in scenes]
    size = (info.image_size[0] + growth[0], info.image_size[1] + growth[1])
    frames = [resize(scene.frame, size) for scene in scenes]
    return Inputs(waveform=np.stack(sounds).astype(np.float32), image=np.stack(frames))


def _size(values: NDArray[np.float32]) -> float:
    return max(1.0, float(np.abs(values).max()))


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The smallest cosine between corresponding maps of [B,K,h,w]."""
    a, b = (x.reshape(-1, x.shape[2] * x.shape[3]).astype(np.float64) for x in (one, other))
    product = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min((a * b).sum(axis=1) / np.maximum(product, 1e-12)))
