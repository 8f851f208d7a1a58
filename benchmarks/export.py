"""Measures what export costs and preserves: time, sizes, accuracy and speed of every precision, engines.

python -m benchmarks.export --output benchmarks/results/export.json [--steps 120]

The shipped model, and an avgn-resnet18 that is trained for `--steps` steps on rendered scenes first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from avgn.config import preset
from avgn.export import engine_builder
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.recheck import recheck, recheck_table
from avgn.export.verify import render_batch
from avgn.machine import measured_on
from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import HALVES
from avgn.runtime.engines import ENGINES, load_engine
from avgn.runtime.errors import FailureError
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import CLASSES, SceneConfig, synthesize
from avgn.training import TrainConfig
from avgn.training.fit import train

SHIPPED = Path(__file__).resolve().parents[1] / "recipes" / "checkpoint"
PRECISIONS = ("fp32", "fp16", "int8-cpu", "int8-gpu")
TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
SEED = 4_711
REPEATS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120, help="of training avgn-resnet18; 0 leaves it out")
    args = parser.parse_args()
    record: dict[str, Any] = {
        "machine": measured_on(),
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["AVGN_CACHE"] = str(root / "cache")
        test = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
        guard = read_manifest(synthesize(root / "test", scenes=300, config=test, seed=SEED))
        held = SceneConfig(split="val")
        calibration = read_manifest(synthesize(root / "val", scenes=64, config=held, seed=SEED + 1))
        checkpoints = {"avgn-tiny": SHIPPED}
        if args.steps:
            checkpoints["avgn-resnet18"] = brief_training(root, args.steps)
        for name, checkpoint in checkpoints.items():
            print(name, flush=True)
            record["models"][name] = measure(checkpoint, root / name, calibration, guard)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def brief_training(root: Path, steps: int) -> Path:
    """Train avgn-resnet18 for a few steps: activations look as after training, accuracy stays near nothing."""
    scenes = read_manifest(synthesize(root / "train", scenes=1200, config=SceneConfig(split="train"), seed=SEED + 2))
    settings = TrainConfig(
        steps=steps, batch_size=16, learning_rate=1e-4, visual_weights="random", auxiliary=1.0, checkpoint_steps=steps
    )
    return train(preset("avgn-resnet18", classes=CLASSES), scenes, None, root / "run", settings)


def measure(checkpoint: Path, target: Path, calibration: Manifest, guard: Manifest) -> dict[str, Any]:
    """Measure one model: a bundle of all precisions, verified in every engine, and its engines for all targets."""
    begin = time.perf_counter()
    export_bundle(checkpoint, target / "fp32")
    alone = time.perf_counter() - begin
    options = ExportOptions(precisions=PRECISIONS, calibration=calibration, guard=guard, max_drop=100.0)
    begin = time.perf_counter()
    bundle = export_bundle(checkpoint, target / "all", options, report=lambda line: print(" ", line, flush=True))
    whole = time.perf_counter() - begin
    rows = recheck(bundle.path, checkpoint=str(checkpoint), manifest=guard)
    print("\n".join(recheck_table(rows)), flush=True)
    return {
        "export_seconds": {"fp32": round(alone, 1), "all_precisions": round(whole, 1)},
        "megabytes": {variant.precision: megabytes(bundle, variant) for variant in bundle.variants},
        "measured_at_export": {variant.precision: variant.verified for variant in bundle.variants},
        "verified": rows,
        "sample_ms": speeds(bundle),
        "tensorrt_rtx_engines": engines(bundle),
    }


def megabytes(bundle: Bundle, variant: Variant) -> float:
    return round(sum(bundle.graph(variant, half).stat().st_size for half in HALVES) / 1e6, 2)


def speeds(bundle: Bundle) -> list[dict[str, Any]]:
    """Measure the median milliseconds of both halves, all variants taking turns so that a busy machine hurts them
    alike."""
    loaded = {
        (variant.precision, name): load_engine(bundle, variant, name)
        for variant in bundle.variants
        for name, entry in ENGINES.items()
        if variant.engine in entry.reads and entry.obstacle(variant.target) is None
    }
    batch = render_batch(bundle.info, 1)
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in loaded}
    for at in range(REPEATS + 5):
        for key, engine in loaded.items():
            start = time.perf_counter()
            sources = engine.run_audio(batch.waveform)["sources"]
            middle = time.perf_counter()
            engine.run_image(batch.image, sources)
            if at >= 5:
                times[key].append((middle - start, time.perf_counter() - middle))
    return [
        {"precision": precision, "engine": name, "audio": round(audio, 3), "image": round(image, 3)}
        for (precision, name), values in times.items()
        for audio, image in [np.median(np.array(values), axis=0) * 1e3]
    ]


def engines(bundle: Bundle) -> list[dict[str, Any]]:
    """Measure the sizes and build times of all engines, or say why one can't be built."""
    height, width = bundle.image_size
    profile = engine_builder.Profile(height=(32, height, 1024), width=(32, width, 1024))
    rows = []
    for variant in bundle.variants:
        if variant.precision == "int8-cpu":
            continue
        for target in TARGETS:
            row: dict[str, Any] = {"precision": variant.precision, "target": target, "megabytes": {}, "seconds": {}}
            for half in HALVES:
                begin = time.perf_counter()
                try:
                    data = engine_builder.build(
                        "tensorrt-rtx",
                        bundle.graph(variant, half),
                        inputs=variant.inputs[half],
                        outputs=variant.outputs[half],
                        profile=profile,
                        compute_capability=target,
                    )
                except FailureError as error:
                    row["failure"] = str(error)
                    continue
                row["seconds"][half] = round(time.perf_counter() - begin, 2)
                row["megabytes"][half] = round(len(data) / 1e6, 2)
            rows.append(row)
            print(" ", row, flush=True)
    return rows


if __name__ == "__main__":
    main()
