"""How samples become a batch.

Legend: B batch, T samples, H x W pixels, N sources of a sample (padded), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avgn.data.sample import Sample
from avgn.losses import Labels


@dataclass(frozen=True, kw_only=True)
class Batch:
    """image [B,H,W,3] uint8, waveform [B,T] float32 and the labels."""

    image: Tensor
    waveform: Tensor
    labels: Labels

    def to(self, device: torch.device) -> Batch:
        """The same on another device; what lies in pinned memory is copied while the caller goes on."""
        return Batch(
            image=self.image.to(device, non_blocking=True),
            waveform=self.waveform.to(device, non_blocking=True),
            labels=self.labels.to(device),
        )

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from while it computes."""
        return Batch(
            image=self.image.pin_memory(), waveform=self.waveform.pin_memory(), labels=self.labels.pin_memory()
        )


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
    """`collate` with the class count bound, so that loader workers can be spawned."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, self.num_classes)
