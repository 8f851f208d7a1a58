"""Starts a training from the published weights of the encoders `world`."""

from __future__ import annotations

from avgn.encoders import efficientnet_lite, yamnet
from avgn.encoders.packages import EFFICIENTNET, YAMNET, read_onnx_numbers, read_state
from avgn.encoders.rounding import round_weights
from avgn.model import LocalizerModel
from avgn.world.model import WorldLocalizer
from avgn.world.weights import build_world


def start_published(model: LocalizerModel, *, rounded: bool) -> str:
    """Load the packages' weights into the encoders, and into tokens that are classifier rows; returns their names.

    `rounded`: to what float16 holds, for encoders that stay as they are. Raises InputError where a package is missing.
    """
    if isinstance(model, WorldLocalizer):
        model.load_state_dict(build_world(model.config).state_dict())
    else:
        image, _, _ = efficientnet_lite.rename(read_state(EFFICIENTNET))
        audio, _, _ = yamnet.rename(read_onnx_numbers(YAMNET))
        model.visual_encoder.backbone.load_state_dict(image)
        model.audio_encoder.backbone.load_state_dict(audio)
    if rounded:
        for part in model.published_parts():
            round_weights(part.eval())
    return f"{EFFICIENTNET.package} {EFFICIENTNET.version} and {YAMNET.package} {YAMNET.version}"
