"""The two halves of a localizer as exported: tensors in and out, no labels, no modes.

Legend: B batch, T samples, H x W pixels, h x w cells, K maps, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avgn.model import AVGN, AudioSources


class AudioHalf(nn.Module):
    """waveform [B,T] float32 -> sources [B,K,D] (of length one, but for the released variant), audio_prob [B,K]."""

    def __init__(self, model: AVGN) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        audio = self.model.encode_audio(waveform)
        sources = self.model.hand_over(audio)
        prob = torch.ones_like(sources[:, :, 0]) if audio.logit is None else audio.logit.sigmoid()
        return sources, prob


class ImageHalf(nn.Module):
    """image [B,H,W,3] uint8 RGB, sources [B,K,D] -> maps [B,K,h,w], visual_prob [B,K]."""

    def __init__(self, model: AVGN) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        cells = self.model.encode_image(image)
        maps = self.model.localize(AudioSources(embedding=sources, logit=None), cells)
        prob = torch.ones_like(sources[:, :, 0]) if cells.logit is None else cells.logit.sigmoid()
        return maps, prob
