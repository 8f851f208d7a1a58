"""Compares the visual gates after equal training: the comparison that decided the default of avgn-tiny.

python -m benchmarks.gates --data runs/tiny/data --output benchmarks/results/gates.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, get_args

from avgn.checkpoint import load_model
from avgn.config import VisualGate, preset
from avgn.engine import TorchEngine
from avgn.evaluation import evaluate, sound_decides
from avgn.runtime.manifest import read_manifest
from avgn.scenes import CLASSES, SceneConfig, render_swap, synthesize
from avgn.training import TrainConfig
from avgn.training.fit import train
from recipes.tiny import TRAINING, render_data

SEED = 31_415


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's scenes, rendered if missing")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--scenes", type=int, default=300)
    args = parser.parse_args()
    manifests = render_data(args.data)
    training = TrainConfig.from_options(**(TRAINING | {"steps": args.steps}))
    pair = SceneConfig(split="test", sources=(1, 1), silent=(1, 1), off_screen=0.0)
    pairs = [render_swap(pair, SEED, index) for index in range(args.scenes)]
    record: dict[str, Any] = {"steps": args.steps, "scenes": args.scenes, "seed": SEED, "gates": {}}
    with tempfile.TemporaryDirectory() as folder:
        config = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
        stills = read_manifest(synthesize(Path(folder) / "stills", scenes=args.scenes, config=config, seed=SEED + 1))
        for gate in get_args(VisualGate):
            output = Path(folder) / gate
            model = preset("avgn-tiny", classes=CLASSES, visual_gate=gate)
            engine = TorchEngine(load_model(train(model, manifests["train"], manifests["val"], output, training)))
            record["gates"][gate] = {
                "adaptive": evaluate(engine, stills, ["adaptive"]),
                "own_object_hotter": sound_decides(engine, pairs),
            }
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
