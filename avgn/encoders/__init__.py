"""Encoders of pictures and sounds: one family a file."""

from __future__ import annotations

from typing import Any

from torch import nn

from avgn.config import Config
from avgn.encoders.efficientnet_lite import EfficientNetLite0
from avgn.encoders.resnet import (
    LEAST_CHANNELS_LAST,
    AudioEncoder,
    ResNet18,
    VisualEncoder,
    load_audio_weights,
    load_visual_weights,
)
from avgn.encoders.yamnet import LogMel, SpectrogramYAMNet
from avgn.frontend import Spectrogram

__all__ = [
    "LEAST_CHANNELS_LAST",
    "AudioEncoder",
    "ResNet18",
    "VisualEncoder",
    "build_encoders",
    "load_audio_weights",
    "load_visual_weights",
    "image_backbone",
]


def build_encoders(config: Config) -> tuple[Any, Any, Any]:
    """Build the front-end, the audio encoder and the visual encoder of a configuration, with random weights."""
    if config.encoders == "world":
        front_end: nn.Module = LogMel()
        hear: nn.Module = SpectrogramYAMNet()
    else:
        front_end, hear = Spectrogram(config), ResNet18(1, config.width_audio)
    return front_end, AudioEncoder(hear, config.dim), VisualEncoder(image_backbone(config), config.dim)


def image_backbone(config: Config) -> Any:
    """Build the network that sees normalised pictures: [B,3,H,W] -> [B,out_channels,h,w]."""
    if config.encoders == "world":
        return EfficientNetLite0(config.visual_stride)
    return ResNet18(3, config.width_visual, config.visual_stride)
