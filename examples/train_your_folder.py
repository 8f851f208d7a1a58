"""Train on your own videos, one folder a class, and export a bundle: python examples/train_your_folder.py CLIPS OUT

CLIPS/dog/a.mp4, CLIPS/violin/b.mp4, ...; OUT is a new folder. Hundreds of clips and thousands of steps make a model:
STEPS in the environment says how many.
"""

import os
import sys
from pathlib import Path

from avgn.config import preset
from avgn.export.bundle import export_bundle
from avgn.importers.base import ImportOptions
from avgn.importers.registry import import_dataset
from avgn.runtime.manifest import read_manifest
from avgn.training import TrainConfig
from avgn.training.fit import train

clips, out = Path(sys.argv[1]), Path(sys.argv[2])
listed = out / "train.jsonl"
out.mkdir()

found = import_dataset("videos", ImportOptions(root=clips, metadata=clips, output=listed, split="train"))
print(f"{len(found.items)} clips of {', '.join(found.classes)}")

training = TrainConfig(steps=int(os.environ.get("STEPS", "2000")), batch_size=2, visual_weights="random")
checkpoint = train(preset("avgn-tiny", classes=found.classes), read_manifest(listed), None, out / "run", training)
print(export_bundle(checkpoint, out / "bundle").path)
