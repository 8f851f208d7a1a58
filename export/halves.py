"""The two halves of an optimized localizer as exported: tensors in and out, no labels, no modes.

Legend: B batch, T samples, H x W pixels, h x w cells, K maps, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avgn.engine import describe
from avgn.export.optimize import OptimizedModel, check_optimized
from avgn.types import AudioSources, ImageCells


class AudioHalf(nn.Module):
    """waveform [B,T] float32 -> sources [B,K,D] (as the model hands them over), audio_prob [B,K]."""

    def __init__(self, optimized: OptimizedModel) -> None:
        super().__init__()
        check_optimized(optimized)
        self.model = optimized.model

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        audio = self.model.encode_audio(waveform)
        sources = self.model.hand_over(audio)
        prob = torch.ones_like(sources[:, :, 0]) if audio.logit is None else audio.logit.sigmoid()
        return sources, prob


class ImageHalf(nn.Module):
    """image [B,H,W,3] uint8 RGB, sources [B,K,D] -> maps [B,K,h,w], visual_prob [B,K]."""

    def __init__(self, optimized: OptimizedModel) -> None:
        super().__init__()
        check_optimized(optimized)
        self.model = optimized.model

    def forward(self, image: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        cells = self.model.encode_pixels(self._pixels(image))
        # of one gate for all pictures, what is made from it alone is computed once
        shared = self.model.shared_gate()
        gate = cells.gate if shared is None else shared
        seen = ImageCells(cells=cells.cells, gate=gate, logit=cells.logit, grid=cells.grid)
        maps = self.model.localize(AudioSources(embedding=sources, logit=None), seen)
        prob = torch.ones_like(sources[:, :, 0]) if cells.logit is None else cells.logit.sigmoid()
        return maps, prob

    def _pixels(self, image: Tensor) -> Tensor:
        """[B,3,H,W] without their mean: the first convolution divides by their deviation."""
        return image.to(self.model.image_mean.dtype).permute(0, 3, 1, 2) - self.model.image_mean


class HalvesEngine:
    """The exported halves run by PyTorch in their own precision; numpy in and out, as every engine."""

    name = "torch"

    def __init__(self, optimized: OptimizedModel) -> None:
        self.audio, self.image = AudioHalf(optimized), ImageHalf(optimized)
        self.info = describe(optimized.model)

    @torch.no_grad()
    def run_audio(self, waveform: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """waveform [B,T] -> sources [B,K,D], audio_prob [B,K]."""
        sources, prob = self.audio(torch.from_numpy(np.ascontiguousarray(waveform)))
        return {"sources": sources.numpy(), "audio_prob": prob.numpy()}

    @torch.no_grad()
    def run_image(self, image: NDArray[np.uint8], sources: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """image [B,H,W,3] uint8 RGB, sources [B,K,D] -> maps [B,K,h,w], visual_prob [B,K]."""
        pixels, given = (torch.from_numpy(np.ascontiguousarray(array)) for array in (image, sources))
        maps, prob = self.image(pixels, given)
        return {"maps": maps.numpy(), "visual_prob": prob.numpy()}
