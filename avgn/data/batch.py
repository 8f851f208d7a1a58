"""Makes batches of samples.

Legend: N sources of a sample (padded), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from avgn.data.sample import Sample
from avgn.types import Batch, Labels


def collate(samples: Sequence[Sample], num_classes: int) -> Batch:
    """Stack samples; sources are padded to the largest N (at least one)."""
    count = len(samples)
    most = max(1, *(len(sample.order) for sample in samples))
    sounding = torch.zeros(count, num_classes)
    visible = torch.zeros(count, num_classes)
    order = torch.zeros(count, most, dtype=torch.int64)
    mask = torch.zeros(count, most, dtype=torch.bool)
    for row, sample in enumerate(samples):
        sounding[row, list(sample.sounding)] = 1.0
        visible[row, list(sample.visible)] = 1.0
        order[row, : len(sample.order)] = torch.tensor(sample.order, dtype=torch.int64)
        mask[row, : len(sample.order)] = True
    return Batch(
        image=torch.from_numpy(np.stack([sample.image for sample in samples])),
        waveform=torch.from_numpy(np.stack([sample.waveform for sample in samples])),
        labels=Labels(sounding=sounding, visible=visible, order=order, mask=mask),
    )


class Collate:
    """Binds the number of classes to `collate`, in a form that spawned loader workers can receive."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, self.num_classes)
