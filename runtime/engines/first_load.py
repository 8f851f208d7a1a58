"""An engine that could not run where it was exported is compared with its ONNX graphs where it is first loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, BundleInfo, Variant
from avgn.runtime.contract import PROBABILITIES, TOLERANCES
from avgn.runtime.engines.base import Engine
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.files import cache_folder, write_whole

PROBES = 6


def check_first_load(bundle: Bundle, variant: Variant, engine: Engine, parent: Engine) -> dict[str, float] | None:
    """Compare an engine with its ONNX graphs, once per machine; what was measured, None where it was known.

    Raises FailureError, naming the measure, when they differ beyond what the precision may cost.
    """
    gpu = find_gpu()
    machine = gpu if isinstance(gpu, str) else f"{gpu.name} {gpu.target}"
    key = json.dumps([variant.sha256, variant.engine, engine.name, machine])
    mark = cache_folder() / "verified" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    if mark.is_file():
        return None
    metrics = compare_engines(engine, parent)
    allowed = TOLERANCES.get(variant.precision, TOLERANCES["fp32"])
    cosine, difference = allowed.engine_cosine, allowed.engine_prob
    # written so that NaN fails
    if not metrics["cosine_maps"] >= cosine or not metrics["max_abs_prob"] <= difference:
        raise FailureError(
            f"the {variant.precision} engine of {bundle.path} for {engine.name} differs from its ONNX graphs on this "
            f"GPU: the maps' cosine is {metrics['cosine_maps']:.5f} (least {cosine}), a probability differs by "
            f"{metrics['max_abs_prob']:.3g} (most {difference}): export it again here, or use --backend onnxruntime"
        )
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_whole(mark, json.dumps({"machine": machine, **metrics}) + "\n")
    except (OSError, InputError):
        # without a cache the comparison is made again next time
        pass
    return metrics


def compare_engines(engine: Engine, parent: Engine) -> dict[str, float]:
    """Return the chain of both halves on probes: the mean cosine of maps, the largest difference of probabilities."""
    waveform, image = probes(parent.info)
    results = []
    for each in (engine, parent):
        heard = each.run_audio(waveform)
        results.append(heard | each.run_image(image, heard["sources"]))
    found, expected = results
    one, other = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (found["maps"], expected["maps"]))
    product = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return {
        "cosine_maps": float(np.mean(np.sum(one * other, axis=1) / np.maximum(product, 1e-12))),
        "max_abs_prob": float(np.max([np.abs(found[name] - expected[name]).max() for name in PROBABILITIES])),
    }


def probes(info: BundleInfo) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Sounds [B, T] and pictures [B, H, W, 3] that reach all of a model: chords in noise, coloured spots on ramps."""
    rng = np.random.default_rng(0)
    at = np.arange(info.window_samples) / info.sample_rate
    sounds = []
    for _ in range(PROBES):
        tones = rng.uniform(80, 0.4 * info.sample_rate, 4)
        chord = sum(
            np.sin(2 * np.pi * tone * at + phase) for tone, phase in zip(tones, rng.uniform(0, 6, 4), strict=True)
        )
        rhythm = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(0.5, 8) * at))
        sounds.append(0.1 * chord * rhythm + 0.02 * rng.standard_normal(len(at)))
    height, width = info.image_size
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]  # type: ignore[misc]
    pictures = []
    for _ in range(PROBES):
        picture = 128 + 60 * (rng.uniform(-1, 1, 3) * x[..., None] + rng.uniform(-1, 1, 3) * y[..., None])
        for _ in range(3):
            spot = np.hypot(x - rng.uniform(), y - rng.uniform()) < rng.uniform(0.08, 0.25)
            picture[spot] = rng.uniform(0, 255, 3)
        pictures.append(picture + rng.normal(0, 4, picture.shape))
    return np.stack(sounds).astype(np.float32), np.clip(np.stack(pictures), 0, 255).astype(np.uint8)


def parent_of(bundle: Bundle, variant: Variant) -> Variant:
    """Return the ONNX graphs that an engine was built from. Raises InputError for a bundle without them."""
    for each in bundle.info.variants:
        if each.engine == "onnxruntime" and each.precision == variant.precision:
            return replace(each)
    raise InputError(
        f"bundle {bundle.path} has no ONNX graphs to verify its {variant.precision} {variant.engine} engine with: "
        "export it with --format onnx beside the engine's"
    )
