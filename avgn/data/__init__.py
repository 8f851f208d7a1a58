"""Scenes of manifests and shards as training batches: reading, augmenting, mixing, sampling."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avgn.data.augment import Augmentation
    from avgn.data.batch import Batch, collate
    from avgn.data.dataset import AudioVisualDataset
    from avgn.data.loading import build_loader
    from avgn.data.mixing import Mixing
    from avgn.data.sample import Sample
    from avgn.data.sampling import Key, SeededBatches, class_balance, ordered_batches

__all__ = [
    "AudioVisualDataset",
    "Augmentation",
    "Batch",
    "Key",
    "Mixing",
    "Sample",
    "SeededBatches",
    "build_loader",
    "class_balance",
    "collate",
    "ordered_batches",
]

# where each name lives: settings are read without torch, which `avgn train --help` should not wait for
_HOMES = {
    "AudioVisualDataset": "dataset",
    "Augmentation": "augment",
    "Batch": "batch",
    "Key": "sampling",
    "Mixing": "mixing",
    "Sample": "sample",
    "SeededBatches": "sampling",
    "build_loader": "loading",
    "class_balance": "sampling",
    "collate": "batch",
    "ordered_batches": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
