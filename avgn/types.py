"""What the halves of a localizer, its losses and its batches hand to each other.

Legend: B batch, T samples, H x W pixels, h x w cells, P = h * w, K maps, C classes, N sources of a sample (padded),
D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AudioSources:
    """What the audio half hears: embedding [B,K,D] and presence logit [B,K] (None without presence)."""

    embedding: Tensor
    logit: Tensor | None


@dataclass(frozen=True, kw_only=True)
class ImageCells:
    """What the image half sees: cells [B,P,D], gate [B,K,D] or None, presence logit [B,K] or None, grid (h, w)."""

    cells: Tensor
    gate: Tensor | None
    logit: Tensor | None
    grid: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Features:
    """scores [B,K,h,w] before any display scaling; audio_prob and visual_prob [B,K] (None without presence)."""

    scores: Tensor
    audio_prob: Tensor | None
    visual_prob: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Labels:
    """sounding and visible [B,C] float in {0,1}; order [B,N] int64: the classes that sound and are visible, padded;
    mask [B,N] bool: which entries of `order` are sources.
    """

    sounding: Tensor
    visible: Tensor
    order: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Labels:
        """Copy to another device; what lies in pinned memory is copied while the caller goes on."""
        return Labels(
            sounding=self.sounding.to(device, non_blocking=True),
            visible=self.visible.to(device, non_blocking=True),
            order=self.order.to(device, non_blocking=True),
            mask=self.mask.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Labels:
        """Copy to memory that a GPU copies from while it computes."""
        return Labels(
            sounding=self.sounding.pin_memory(),
            visible=self.visible.pin_memory(),
            order=self.order.pin_memory(),
            mask=self.mask.pin_memory(),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """image [B,H,W,3] uint8 RGB, waveform [B,T] float32 and the labels."""

    image: Tensor
    waveform: Tensor
    labels: Labels

    def to(self, device: torch.device) -> Batch:
        """Copy to another device; what lies in pinned memory is copied while the caller goes on."""
        return Batch(
            image=self.image.to(device, non_blocking=True),
            waveform=self.waveform.to(device, non_blocking=True),
            labels=self.labels.to(device),
        )

    def pin_memory(self) -> Batch:
        """Copy to memory that a GPU copies from while it computes."""
        return Batch(
            image=self.image.pin_memory(), waveform=self.waveform.pin_memory(), labels=self.labels.pin_memory()
        )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Scalars; `total` is their sum."""

    total: Tensor
    localization: Tensor
    token: Tensor
    audio: Tensor
    visual: Tensor
