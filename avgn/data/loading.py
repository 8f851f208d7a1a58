"""Builds the loader of batches."""

from __future__ import annotations

from collections.abc import Iterable

from torch.utils.data import DataLoader

from avgn.data.batch import Collate
from avgn.data.dataset import AudioVisualDataset
from avgn.data.sample import Sample
from avgn.data.sampling import Key


def build_loader(
    dataset: AudioVisualDataset, batches: Iterable[list[Key]], workers: int = 0, *, pin: bool = False
) -> DataLoader[Sample]:
    """Build a loader of `Batch` over the given batches of keys; `pin` keeps batches in page-locked memory for a GPU."""
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=Collate(dataset.config.num_classes),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )
