"""What every exported localizer is: two halves with these tensors, in these precisions, as exact as this.

audio half: waveform -> sources, audio_prob
image half: image, sources -> maps, visual_prob

Exporting, verifying, loading and streaming take names, shapes and tolerances from here. B batch, T samples of a window
(or of a patch), K maps, D width of a source, H x W pixels, h x w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

HALVES = ("audio", "image")
INPUTS = {"audio": ("waveform",), "image": ("image", "sources")}
OUTPUTS = {"audio": ("sources", "audio_prob"), "image": ("maps", "visual_prob")}
# what both halves, one after the other, give
ALL_OUTPUTS = tuple(name for half in HALVES for name in OUTPUTS[half])
# without presence heads there are none, and engines give ones
PROBABILITIES = ("audio_prob", "visual_prob")
# the sides of an image are multiples of it, in pixels
STRIDE = 32
# most exact first
INT8 = ("int8-cpu", "int8-gpu")
PRECISIONS = ("fp32", "fp16", *INT8)


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph: its name, dtype and shape; a string stands for a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


Axis = int | str


def tensors(
    *, batch: Axis, samples: Axis, image_size: tuple[Axis, Axis], maps: Axis, dim: Axis, grid: tuple[Axis, Axis]
) -> dict[str, TensorSpec]:
    """Return every tensor of both halves by name, for these sizes; a name in place of a size leaves the axis open.

    `batch` B, `samples` T, `image_size` (H, W), `maps` K, `dim` D, `grid` (h, w).
    """
    specs = (
        TensorSpec(name="waveform", dtype="float32", shape=(batch, samples)),
        TensorSpec(name="image", dtype="uint8", shape=(batch, *image_size, 3)),
        TensorSpec(name="sources", dtype="float32", shape=(batch, maps, dim)),
        TensorSpec(name="audio_prob", dtype="float32", shape=(batch, maps)),
        TensorSpec(name="maps", dtype="float32", shape=(batch, maps, *grid)),
        TensorSpec(name="visual_prob", dtype="float32", shape=(batch, maps)),
    )
    return {spec.name: spec for spec in specs}


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What a precision may cost.

    Graphs against the model, on rendered scenes: `max_abs` is the largest difference of any output (None: any that is
    finite), `cosine` the least cosine of maps as (measure, value), of the worst scene or of the mean one.
    An engine against its graphs, where it is first loaded: `engine_cosine` is the least mean cosine of maps,
    `engine_prob` the largest difference of a probability.
    """

    max_abs: float | None = None
    cosine: tuple[str, float] | None = None
    engine_cosine: float
    engine_prob: float


# engines sum in other orders than the CPU does: fp32 keeps four digits in them
TOLERANCES = {
    "fp32": Tolerance(max_abs=1e-5, engine_cosine=0.9999, engine_prob=1e-3),
    "fp16": Tolerance(cosine=("cosine_maps", 0.9995), engine_cosine=0.9995, engine_prob=0.02),
    "int8-cpu": Tolerance(cosine=("cosine_maps_mean", 0.98), engine_cosine=0.98, engine_prob=0.15),
    "int8-gpu": Tolerance(cosine=("cosine_maps_mean", 0.98), engine_cosine=0.98, engine_prob=0.15),
}
