"""What of a model rests in training: parts that are not trained, and norms that keep published statistics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from avgn.config import Config
from avgn.model import LocalizerModel
from avgn.training.config import ENCODERS, TrainConfig


def is_published(config: Config, training: TrainConfig) -> bool:
    """Return whether the encoders start from weights that their makers published, or that were trained on from
    those."""
    return config.encoders == "world" and training.visual_weights != "random"


def is_frozen(config: Config, training: TrainConfig) -> bool:
    """Return whether the encoders are not trained."""
    if training.freeze is None:
        return is_published(config, training)
    return training.freeze == ENCODERS


def rest(model: LocalizerModel, training: TrainConfig) -> list[nn.Module]:
    """Take the gradients from what is not trained; returns all that must stay in evaluation mode.

    Published batch norms keep their statistics also where they are trained: a batch of few scenes has none as good, and
    rounded weights hold the norms' own scales.
    """
    parts = model.published_parts()
    if is_frozen(model.config, training):
        for part in parts:
            part.requires_grad_(False)
        return parts
    return _norms(parts) if is_published(model.config, training) else []


def _norms(parts: Sequence[nn.Module]) -> list[nn.Module]:
    return [module for part in parts for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
