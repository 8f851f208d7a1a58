"""Puts a trained core model behind the runtime's engine interface, so that one code evaluates checkpoints and
bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avgn.model import LocalizerModel
from avgn.runtime.bundle_schema import BundleInfo, Patches, Thresholds
from avgn.runtime.errors import InputError
from avgn.types import AudioSources

DEFAULT_THRESHOLD = 0.5


class TorchEngine:
    """Runs a localizer in PyTorch; numpy in and out, shapes as in the exported halves.

    `info` holds what a bundle of this model would say of it, without variants. On a GPU, convolutions keep all bits of
    float32 and algorithms that give the same result every time.
    """

    name = "torch"

    def __init__(self, model: LocalizerModel, device: str = "cpu") -> None:
        """Move the model to `device` ("cpu", "cuda" or "cuda:1"). Raises InputError for one that isn't there."""
        self.device = find_device(device)
        self.model = model.to(self.device).eval()
        self.info = describe(model)

    @torch.inference_mode()
    def run_audio(self, waveform: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the audio half: waveform [B,T] -> sources [B,K,D], audio_prob [B,K]."""
        with _exact(self.device):
            audio = self.model.encode_audio(self._given(waveform))
            sources = self.model.hand_over(audio)
        prob = torch.ones(sources.shape[:2]) if audio.logit is None else audio.logit.sigmoid()
        return {"sources": sources.cpu().numpy(), "audio_prob": prob.cpu().numpy()}

    @torch.inference_mode()
    def run_image(self, image: NDArray[np.uint8], sources: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the image half: image [B,H,W,3] uint8 RGB, sources [B,K,D] -> maps [B,K,h,w], visual_prob [B,K]."""
        with _exact(self.device):
            cells = self.model.encode_image(self._given(image))
            maps = self.model.localize(AudioSources(embedding=self._given(sources), logit=None), cells)
        prob = torch.ones(maps.shape[:2]) if cells.logit is None else cells.logit.sigmoid()
        return {"maps": maps.cpu().numpy(), "visual_prob": prob.cpu().numpy()}

    def _given(self, value: NDArray[np.float32] | NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device)


def find_device(name: str) -> torch.device:
    """Find the device of that name. Raises InputError for an unknown name, and for a GPU that this machine lacks."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known: use cpu, cuda, or cuda:1 for the second GPU") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported: use cpu or cuda")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device {name!r} is not there, PyTorch sees {count} CUDA devices: use cpu")
    return device


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    if device.type == "cpu":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def describe(model: LocalizerModel) -> BundleInfo:
    """Describe what the runtime needs to know about a model."""
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
        patches=None
        if config.patch_samples is None
        else Patches(samples=config.patch_samples, loudest=model.loudest_patches),
        joint=model.joint,
    )
