"""Scenes of manifests and shards as training batches: reading, augmenting, mixing, sampling."""

from avgn.data.augment import Augmentation
from avgn.data.dataset import AudioVisualDataset
from avgn.data.loading import build_loader
from avgn.data.mixing import Mixing
from avgn.data.samples import Batch, Sample, collate
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
