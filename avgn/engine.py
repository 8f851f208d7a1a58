"""A trained core model behind the runtime's engine interface, so that one code evaluates checkpoints and bundles."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from avgn.model import AudioSources, TwoHalves
from avgn.runtime.bundle_schema import BundleInfo, Thresholds

DEFAULT_THRESHOLD = 0.5


class TorchEngine:
    """Runs a localizer in PyTorch; numpy in and out, shapes as in the exported halves.

    `info` holds what a bundle of this model would say of it, without variants.
    """

    name = "torch"

    def __init__(self, model: TwoHalves) -> None:
        self.model = model.eval()
        self.info = describe(model)

    @torch.inference_mode()
    def run_audio(self, waveform: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """waveform [B,T] -> sources [B,K,D], audio_prob [B,K]."""
        audio = self.model.encode_audio(torch.from_numpy(np.ascontiguousarray(waveform)))
        sources = self.model.hand_over(audio)
        prob = torch.ones(sources.shape[:2]) if audio.logit is None else audio.logit.sigmoid()
        return {"sources": sources.numpy(), "audio_prob": prob.numpy()}

    @torch.inference_mode()
    def run_image(self, image: NDArray[np.uint8], sources: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """image [B,H,W,3] uint8 RGB, sources [B,K,D] -> maps [B,K,h,w], visual_prob [B,K]."""
        cells = self.model.encode_image(torch.from_numpy(np.ascontiguousarray(image)))
        audio = AudioSources(embedding=torch.from_numpy(np.ascontiguousarray(sources)), logit=None)
        maps = self.model.localize(audio, cells)
        prob = torch.ones(maps.shape[:2]) if cells.logit is None else cells.logit.sigmoid()
        return {"maps": maps.numpy(), "visual_prob": prob.numpy()}


def describe(model: TwoHalves) -> BundleInfo:
    """The facts that the runtime needs to know of a model."""
    config = model.config
    names = model.map_names
    count = len(names)
    visual = DEFAULT_THRESHOLD if model.has_presence else model.map_threshold
    neutral = Thresholds(audio=(DEFAULT_THRESHOLD,) * count, visual=(visual,) * count)
    return BundleInfo(
        model={"name": config.name, "config": config.to_dict()},
        classes=names,
        sample_rate=config.sample_rate,
        window_seconds=config.window_seconds,
        image_size=config.image_size,
        grid=config.grid,
        thresholds=model.thresholds or neutral,
        variants=(),
        has_presence=model.has_presence,
    )
