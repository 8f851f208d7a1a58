"""Scores a model on realistic scenes of instruments, beside floors, and whether a map is hottest on its own object.

python -m benchmarks.realistic RUN --thresholds cal.jsonl --sets duet=duet.jsonl mix=mix.jsonl solo=solo.jsonl \
    --output benchmarks/results/realistic.json

The scenes are made of pictures that may not be passed on; their numbers may.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from avgn.checkpoint import load_model
from avgn.engine import TorchEngine
from avgn.evaluation import evaluate, format_table
from avgn.evaluation.calibration import calibrate
from avgn.evaluation.canvas import source_mask, upsample_bilinear
from avgn.evaluation.inference import predict
from avgn.machine import measured_on
from avgn.runtime.engines import Engine
from avgn.runtime.manifest import Manifest, read_manifest

SHOWN = (
    "CAP",
    "PIAP",
    "CIoU@0.1",
    "CIoU@0.3",
    "CIoU@0.5",
    "AUC",
    "F1@0.3",
    "class F1 audio",
    "false sources per image",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="a trained checkpoint folder")
    parser.add_argument("--thresholds", type=Path, required=True, help="manifest of other scenes to calibrate on")
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=MANIFEST")
    parser.add_argument("--recipe", type=Path, default=Path("avgn/recipes/realistic.yaml"))
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    model = load_model(args.run)
    engine = TorchEngine(model)
    validation = read_manifest(args.thresholds)
    facts = json.loads((args.run / "config.json").read_text(encoding="utf-8"))
    record: dict[str, Any] = {
        "machine": measured_on(),
        "recipe": args.recipe.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": facts["training"]["steps"],
        "training": facts["training"].get("throughput"),
        "thresholds": f"F1 on {len(validation.items)} other scenes of the same pictures",
        "sets": {},
    }
    for part in args.sets:
        name, _, path = part.partition("=")
        manifest = read_manifest(path)
        found = calibrate(engine, validation, disjoint_from=manifest)
        thresholds = (np.array(found.audio), np.array(found.visual))
        results = evaluate(engine, manifest, ["adaptive", "source-wise"], thresholds=thresholds)
        print(f"== {name}\n{format_table(results)}\n")
        record["sets"][name] = {
            "scenes": len(manifest.items),
            "results": [_short(result) for result in results],
            "own_object_hotter": hotter(engine, manifest, np.array(found.audio)),
        }
        print(record["sets"][name]["own_object_hotter"])
    if args.output:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def _short(result: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"protocol": result["protocol"], "classes": result["classes"]}
    for key in ("metrics", "ci95", "floor", "chance", "ceiling"):
        kept[key] = {name: result[key][name] for name in SHOWN if result.get(key, {}).get(name) is not None}
    return kept


def hotter(engine: Engine, manifest: Manifest, audio_thresholds: np.ndarray[Any, Any]) -> dict[str, float | int]:
    """Measure the percentage of sounding visible sources with other objects in the picture whose own class's map has
    more mean heat on their mask than on any other object's; "given" of all, "predicted" counts those as wrong that
    weren't heard.
    """
    index = {name: k for k, name in enumerate(engine.info.classes)}
    found = predict(engine, manifest)
    given: list[bool] = []
    predicted: list[bool] = []
    for n, item in enumerate(found.items):
        seen = [source for source in item.sources if source.on_screen and source.mask is not None]
        masks = [source_mask([source]) for source in seen]
        for k, source in enumerate(seen):
            others = [mask for at, mask in enumerate(masks) if at != k and mask.any()]
            if not source.sounding or not others or not masks[k].any():
                continue
            label = index[source.label]
            heat = upsample_bilinear(found.maps[n][label][None])[0]
            right = bool(heat[masks[k]].mean() > max(heat[mask].mean() for mask in others))
            given.append(right)
            predicted.append(right and bool(found.audio_prob[n, label] >= audio_thresholds[label]))
    return {
        "given": 100 * float(np.mean(given)) if given else float("nan"),
        "predicted": 100 * float(np.mean(predicted)) if predicted else float("nan"),
        "sources": len(given),
    }


if __name__ == "__main__":
    main()
