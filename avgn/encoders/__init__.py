"""Encoders of pictures and sounds: one family a file."""

from avgn.encoders.resnet import (
    LEAST_CHANNELS_LAST,
    AudioEncoder,
    ResNet18,
    VisualEncoder,
    load_audio_weights,
    load_visual_weights,
)

__all__ = [
    "LEAST_CHANNELS_LAST",
    "AudioEncoder",
    "ResNet18",
    "VisualEncoder",
    "load_audio_weights",
    "load_visual_weights",
]
