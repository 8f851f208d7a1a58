"""ResNet-18 encoders of any width for pictures and spectrograms.

Legend: B batch, H x W pixels, h x w cells, P = h * w, D width.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock

from avgn.maxima import largest
from avgn.weights import BadWeightsError, read_safetensors, read_torch, state_of

log = logging.getLogger(__name__)

# with fewer channels, the backward of strided 1x1 convolutions in channels-last layout crashes PyTorch 2.14 and 2.15 on
# several threads
LEAST_CHANNELS_LAST = 16


class ResNet18(nn.Module):
    """ResNet-18 without pool and head, parameter names as in torchvision: [B,in,H,W] -> [B,8*width,h,w].

    `stride` is 32, or 16 to leave out the stride of the last stage.
    """

    def __init__(self, in_channels: int, width: int = 64, stride: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, stride // 16)
        self.out_channels = 8 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if self.conv1.out_channels < LEAST_CHANNELS_LAST:
            x = x.contiguous()
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x


def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1 or channels_in != channels_out:
        downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(channels_out),
        )
    return nn.Sequential(
        BasicBlock(channels_in, channels_out, stride, downsample), BasicBlock(channels_out, channels_out)
    )


class VisualEncoder(nn.Module):
    """Encodes normalised pictures [B,3,H,W] as cells [B,P,D] of length one, with the grid (h, w)."""

    def __init__(self, backbone: Any, dim: int) -> None:
        """`backbone` gives features [B,out_channels,h,w]."""
        super().__init__()
        self.backbone = backbone
        self.project = nn.Conv2d(self.backbone.out_channels, dim, kernel_size=1)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        features = self.project(self.backbone(image))
        grid = (features.shape[2], features.shape[3])
        return nn.functional.normalize(features.flatten(2).transpose(1, 2), dim=2), grid


class AudioEncoder(nn.Module):
    """Encodes log-spectrograms [B,1,F,frames] as embeddings [B,D] of length one, by a global maximum."""

    def __init__(self, backbone: Any, dim: int) -> None:
        """`backbone` gives features [B,out_channels,h,w]."""
        super().__init__()
        self.backbone = backbone
        self.project = nn.Linear(self.backbone.out_channels, dim)

    def forward(self, spectrogram: Tensor) -> Tensor:
        features = largest(self.backbone(spectrogram), (2, 3))
        return nn.functional.normalize(self.project(features), dim=1)


def load_visual_weights(encoder: VisualEncoder, source: str) -> str:
    """Start the visual backbone from ResNet-18 weights: "imagenet", a state-dict file, or "random".

    Returns what was used. ImageNet weights that can't be fetched, or an encoder of another width, leave the random
    start with one warning. Raises ValueError for a file that doesn't fit.
    """
    if source == "random":
        return "random"
    if source == "imagenet":
        if encoder.backbone.conv1.out_channels != 64:
            log.warning("ImageNet weights exist for width 64 alone: the visual encoder starts from random weights")
            return "random"
        try:
            state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            log.warning(
                "ImageNet weights can't be fetched (%s): the visual encoder starts from random weights; "
                "give a local copy as visual_weights to use it",
                error,
            )
            return "random"
    else:
        state = _read_state(Path(source), "visual")
    _start(encoder.backbone, state, f"visual weights {source}")
    return source


def load_audio_weights(encoder: AudioEncoder, source: str) -> None:
    """Start the audio backbone from a state-dict file of a ResNet-18 of one channel. Raises ValueError for others."""
    _start(encoder.backbone, _read_state(Path(source), "audio"), f"audio weights {source}")


def _start(backbone: ResNet18, state: dict[str, Tensor], what: str) -> None:
    try:
        backbone.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{what} don't fit a ResNet-18 of this width: {reason}") from None


def _read_state(path: Path, kind: str) -> dict[str, Tensor]:
    if not path.is_file():
        other = ", imagenet or random" if kind == "visual" else ""
        what = "are a folder, not a file" if path.is_dir() else "don't exist"
        raise ValueError(f"{kind} weights {path} {what}: give a ResNet-18 state dict{other}")
    try:
        return state_of(read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path))
    except BadWeightsError as error:
        raise ValueError(f"{kind} weights {path} can't be read ({error}): give a state dict") from None
