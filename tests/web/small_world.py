"""A bundle of the world model's layers in float32, with weights by chance: its own packages are not needed."""

from __future__ import annotations

from pathlib import Path

import torch

from avgn.checkpoint import save_model
from avgn.config import preset
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.world.model import WorldLocalizer

LABELS = ("dog", "speech", "violin", "car", "bell")


def write_small_world(folder: Path) -> Path:
    """Write it into `folder` and return the bundle."""
    torch.manual_seed(0)
    model = WorldLocalizer(preset("avgn-world", classes=LABELS, image_size=(160, 160))).eval()
    save_model(model, folder / "checkpoint", training={"converted": "nothing"})
    export_bundle(folder / "checkpoint", folder / "bundle", ExportOptions(precisions=("fp32",)))
    return folder / "bundle"
