"""What the frozen encoders of a bundle make of sounds and pictures: the numbers that rows are applied to.

The bundle's own graphs, cut where their rows begin, run in ONNX Runtime or OpenVINO.

Legend: N patches, S samples of a patch, B pictures, H x W pixels, P cells, D width of features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.bundle import BundleInfo, Variant
from avgn.runtime.engines.threads import physical_cores
from avgn.teach.audio_graph import AudioGraph
from avgn.teach.bundles import Taught, engine_here
from avgn.teach.image_graph import ImageGraph

# patches and pictures that are computed at once: what one core's cache and a small machine's memory hold
PATCHES_AT_ONCE, PICTURES_AT_ONCE = 16, 4
OUTPUT = "features"


class Encoders:
    """The two feature graphs of a bundle, loaded once."""

    def __init__(self, source: Taught, variant: Variant | None = None) -> None:
        """`variant`: whose graphs, by default the most exact ones. Raises MissingExtraError without onnx and an
        engine."""
        bundle, variant = source.bundle, variant or source.exact
        self.info: BundleInfo = bundle.info
        self._audio = _Graph(AudioGraph(bundle.graph(variant, "audio")).with_features(OUTPUT))
        self._image = _Graph(ImageGraph(bundle.graph(variant, "image")).with_features(OUTPUT))

    def hear(self, patches: Floats) -> Floats:
        """Patches [N, S] float32 -> features [N, D]."""
        parts = [
            self._audio({"waveform": np.ascontiguousarray(patches[at : at + PATCHES_AT_ONCE])})
            for at in range(0, len(patches), PATCHES_AT_ONCE)
        ]
        return np.concatenate(parts)

    def see(self, pictures: Pixels) -> Floats:
        """Pictures [B, H, W, 3] uint8 RGB of the bundle's size -> features of their cells [B, P, D]."""
        parts = []
        for at in range(0, len(pictures), PICTURES_AT_ONCE):
            some = np.ascontiguousarray(pictures[at : at + PICTURES_AT_ONCE])
            sources = np.zeros((len(some), len(self.info.classes), 1), np.float32)
            parts.append(self._image({"image": some, "sources": sources}))
        return np.concatenate(parts)


class _Graph:
    """A graph in memory with one output, in the engine that is installed."""

    def __init__(self, data: bytes) -> None:
        self._run = _in_onnxruntime(data) if engine_here() == "onnxruntime" else _in_openvino(data)

    def __call__(self, feed: Mapping[str, Any]) -> Floats:
        return np.asarray(self._run(feed), np.float32)


def _in_onnxruntime(data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = physical_cores()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return lambda feed: session.run([OUTPUT], {name: value for name, value in feed.items() if name in names})[0]


def _in_openvino(data: bytes) -> Any:
    from avgn.runtime.engines.openvino_engine import openvino_core

    core = openvino_core()
    model = core.read_model(data, b"")
    names = {name for value in model.inputs for name in value.names}
    compiled = core.compile_model(model, "CPU")
    return lambda feed: compiled({name: value for name, value in feed.items() if name in names})[0]
