"""Runs `avgn train` and `avgn evaluate` on this GPU: from rendered scenes to a checkpoint whose maps equal the CPU's.

python -m benchmarks.gpu_train --output FILE.json --work FOLDER [--steps 24] [--workers 8] [--compiled]

With --compiled a second run compiles its halves (a minute or more), and its first losses must be those of the first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avgn.checkpoint import load_model
from avgn.config import preset
from avgn.engine import TorchEngine
from avgn.machine import measured_on
from avgn.runtime.engines.first_load import compare_engines
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import SceneConfig, synthesize
from avgn.training import TrainConfig, fit

NUM_SCENES, BATCH = 96, 32
# Adam's first steps go by the signs of gradients, so that roundings grow from step to step
COMPARED_STEPS, ALLOWED_DIFFERENCE = 3, 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    scenes = args.work / "scenes"
    shutil.rmtree(scenes, ignore_errors=True)
    rendered = SceneConfig(split="train", size=(256, 192), seconds=3.0)
    manifest = read_manifest(synthesize(scenes, scenes=NUM_SCENES, config=rendered, seed=0, jobs=args.workers or 1))
    record: dict[str, Any] = {"machine": measured_on(), "model": "avgn-tiny, bf16", "batch": BATCH, "runs": {}}
    for name in ("eager", "compiled") if args.compiled else ("eager",):
        compiled = name == "compiled"
        record["runs"][name] = _train(manifest, args.work / f"run-{name}", compiled, args.steps, args.workers)
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    first = [run["losses"][:COMPARED_STEPS] for run in record["runs"].values()]
    differences = [abs(a / b - 1) for a, b in zip(first[0], first[-1], strict=True)]
    record["first_losses_relative_difference"] = differences
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engines = [TorchEngine(load_model(args.work / "run-eager"), each) for each in (device, "cpu")]
    record["gpu_against_cpu"] = compare_engines(*engines)
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    if not max(differences) < ALLOWED_DIFFERENCE:
        sys.exit("compiled losses differ from eager ones")
    if not record["gpu_against_cpu"]["cosine_maps"] > 0.9999:
        sys.exit("the GPU's maps differ from the CPU's")


def _train(manifest: Manifest, output: Path, compiled: bool, steps: int, workers: int) -> dict[str, Any]:
    shutil.rmtree(output, ignore_errors=True)
    settings = TrainConfig(
        batch_size=BATCH,
        steps=steps,
        visual_weights="random",
        precision="bf16-mixed",
        compile=compiled,
        workers=workers,
    )
    begin = time.perf_counter()
    config = preset("avgn-tiny", classes=manifest.classes, drop_path=0.0)
    fit.train(config, manifest, None, output, settings, progress=False)
    losses = [json.loads(line)["loss"] for line in (output / "losses.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    facts = json.loads((output / "config.json").read_text())["training"]["throughput"]
    return {"seconds": round(time.perf_counter() - begin, 1), "losses": losses, **facts}


if __name__ == "__main__":
    main()
