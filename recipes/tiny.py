"""Makes the bundle inside the package: data, training, thresholds and export, recorded in one file.

python -m recipes.tiny --output runs/tiny
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from avgn.checkpoint import FACTS, WEIGHTS
from avgn.config import preset
from avgn.export.bundle import export_bundle
from avgn.machine import measured_on
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import CLASSES, SceneConfig, synthesize
from avgn.training import TrainConfig
from avgn.training.fit import train

DATA: dict[str, dict[str, Any]] = {
    "train": {"scenes": 16_000, "seed": 1, "sources": (0, 3), "silent": (0, 2), "off_screen": 0.15},
    "val": {"scenes": 800, "seed": 2, "sources": (0, 3), "silent": (0, 2), "off_screen": 0.15},
}
MODEL: dict[str, Any] = {}
ROOT = Path(__file__).resolve().parents[1]
# where --ship puts the bundle, the checkpoint and the record
SHIPPED = ROOT / "avgn" / "models" / "tiny"
KEPT = ROOT / "recipes" / "checkpoint"
RECORD = ROOT / "benchmarks" / "results" / "recipe.json"
TRAINING: dict[str, Any] = {
    "steps": 6_000,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.02,
    "warmup_steps": 100,
    "schedule": "cosine",
    "keep": "last",
    "auxiliary": 1.0,
    "visual_weights": "random",
    "cache": True,
    "workers": 1,
    "validate_epochs": 4,
    "checkpoint_steps": 250,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=TRAINING["steps"])
    parser.add_argument("--ship", action="store_true", help="copy bundle, checkpoint and record into the checkout")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    begin = time.time()
    manifests = render_data(args.output / "data")
    rendered = time.time()
    checkpoint = args.output / "checkpoint"
    resume = (checkpoint / "checkpoints" / "last.ckpt").is_file()
    train(
        preset("avgn-tiny", classes=CLASSES, **MODEL),
        manifests["train"],
        manifests["val"],
        checkpoint,
        TrainConfig.from_options(**(TRAINING | {"steps": args.steps})),
        resume=resume,
    )
    trained = time.time()
    bundle = export_bundle(checkpoint, args.output / "bundle", overwrite=True)
    record = {
        "data": DATA,
        "model": MODEL,
        "training": TRAINING | {"steps": args.steps},
        "seconds": {"rendering": round(rendered - begin), "training": round(trained - rendered)},
        "resumed": resume,
        "machine": measured_on(),
        "verified": bundle.info.variants[0].verified,
    }
    (args.output / "recipe.json").write_text(json.dumps(record, indent=1) + "\n")
    if args.ship:
        ship(bundle.path, checkpoint, args.output / "recipe.json")
    print(bundle.path)


def ship(bundle: Path, checkpoint: Path, record: Path) -> None:
    """Copy the bundle into the package, the checkpoint beside this file and the record into the results."""
    shutil.rmtree(SHIPPED, ignore_errors=True)
    shutil.copytree(bundle, SHIPPED)
    for name in (WEIGHTS, FACTS):
        shutil.copy(checkpoint / name, KEPT / name)
    shutil.copy(record, RECORD)


def render_data(folder: Path) -> dict[str, Manifest]:
    """Return the recipe's manifests by split, rendered under `folder` where they aren't yet."""
    manifests = {}
    for split, facts in DATA.items():
        path = folder / split / "manifest.jsonl"
        if not path.is_file():
            named = dict(facts)
            scenes, seed = named.pop("scenes"), named.pop("seed")
            config = SceneConfig(split=split, **named)
            synthesize(folder / split, scenes=scenes, config=config, seed=seed, jobs=os.cpu_count() or 1)
        manifests[split] = read_manifest(path)
    return manifests


if __name__ == "__main__":
    main()
