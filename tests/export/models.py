"""Small models for export: random weights with the batch statistics of a trained one."""

from __future__ import annotations

from typing import Any

import torch

from avgn.config import preset
from avgn.model import AVGN, build_model
from avgn.runtime.bundle_schema import Thresholds
from tests.squares import CLASSES

SMALL: dict[str, Any] = {
    "classes": CLASSES,
    "image_size": (64, 96),
    "width_visual": 4,
    "width_audio": 4,
    "dim": 16,
    "depth": 1,
    "heads": 4,
    "window_seconds": 0.5,
}


def small_model(**options: Any) -> AVGN:
    torch.manual_seed(0)
    model = build_model(preset("avgn-tiny", **(SMALL | options)))
    assert isinstance(model, AVGN)
    # batch statistics as after training: the identity would hide a mistake in folding them
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
    if model.has_presence:
        model.thresholds = Thresholds(audio=(0.4, 0.5, 0.6, 0.7), visual=(0.3, 0.35, 0.45, 0.55))
    return model.eval()
