"""A small real bundle, built with onnx.helper: three tones and three colours that ONNX Runtime truly computes.

The audio half measures how much of each class's tone is in the window; the image half, how much of each class's colour
is in each cell. A class's map is its colour times its source, so it depends on the sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from avgn.runtime.bundle import BundleInfo, Thresholds, Variant, file_sha256, write_bundle_info
from avgn.runtime.contract import TensorSpec

CLASSES = ("red", "green", "blue")
TONES = (440.0, 1320.0, 3100.0)
COLORS = ((230, 40, 40), (40, 220, 40), (50, 60, 240))
RATE = 22050
WINDOW = 1.0
IMAGE_SIZE = (96, 128)
GRID = (6, 8)
WIDTH = 4


def write_bundle(folder: Path, *, window: float = WINDOW, hop: float = 0.2, has_presence: bool = True) -> Path:
    """Write the bundle into `folder` (made when missing) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    length = round(window * RATE)
    onnx.save(audio_graph(length, has_presence), folder / "audio.onnx")
    onnx.save(image_graph(has_presence), folder / "image.onnx")
    write_bundle_info(folder, bundle_info(folder, window=window, hop=hop, has_presence=has_presence))
    return folder


def bundle_info(folder: Path, *, window: float, hop: float, has_presence: bool) -> BundleInfo:
    """The facts of the bundle whose graphs lie in `folder`."""
    count, (height, width), (rows, columns) = len(CLASSES), IMAGE_SIZE, GRID
    sources = TensorSpec(name="sources", dtype="float32", shape=("batch", count, WIDTH))
    waveform = TensorSpec(name="waveform", dtype="float32", shape=("batch", round(window * RATE)))
    image = TensorSpec(name="image", dtype="uint8", shape=("batch", height, width, 3))
    maps = TensorSpec(name="maps", dtype="float32", shape=("batch", count, rows, columns))
    heard = TensorSpec(name="audio_prob", dtype="float32", shape=("batch", count))
    seen = TensorSpec(name="visual_prob", dtype="float32", shape=("batch", count))
    outputs: dict[str, tuple[TensorSpec, ...]] = {"audio": (sources, heard), "image": (maps, seen)}
    if not has_presence:
        outputs = {"audio": (sources,), "image": (maps,)}
    return BundleInfo(
        model={"name": "tones-and-colours", "config": {}},
        classes=CLASSES,
        sample_rate=RATE,
        window_seconds=window,
        image_size=IMAGE_SIZE,
        grid=GRID,
        thresholds=Thresholds(audio=(0.5,) * count, visual=(0.5 if has_presence else 0.2,) * count),
        has_presence=has_presence,
        audio_hop_seconds=hop,
        variants=(
            Variant(
                precision="fp32",
                engine="onnxruntime",
                target="any",
                audio="audio.onnx",
                image="image.onnx",
                sha256={half: file_sha256(folder / f"{half}.onnx") for half in ("audio", "image")},
                inputs={"audio": (waveform,), "image": (image, sources)},
                outputs=outputs,
                verified=None,
            ),
        ),
        provenance={"made by": "tests"},
    )


def audio_graph(length: int, has_presence: bool) -> onnx.ModelProto:
    """waveform [B, T] -> sources [B, K, D], audio_prob [B, K]."""
    time = np.arange(length) / RATE
    hann = np.hanning(length) * 4 / length
    waves = [np.stack([np.cos(2 * np.pi * f * time), np.sin(2 * np.pi * f * time)]) * hann for f in TONES]
    basis = np.concatenate(waves).T.astype(np.float32)
    directions = np.eye(len(CLASSES), WIDTH, dtype=np.float32)
    constants: dict[str, Any] = {
        "basis": basis,
        "pairs": np.array([0, len(CLASSES), 2], np.int64),
        "last": np.array([2], np.int64),
        "axis": np.array([2], np.int64),
        "floor": np.float32(0.04),
        "slope": np.float32(120),
        "directions": directions,
        "level": np.float32(4),
    }
    nodes = [
        helper.make_node("MatMul", ["waveform", "basis"], ["parts"]),
        helper.make_node("Reshape", ["parts", "pairs"], ["paired"]),
        helper.make_node("ReduceL2", ["paired", "last"], ["amplitude"], keepdims=0),
        helper.make_node("Sub", ["amplitude", "floor"], ["above"]),
        helper.make_node("Mul", ["above", "slope"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["audio_prob"]),
        helper.make_node("Unsqueeze", ["amplitude", "axis"], ["column"]),
        helper.make_node("Mul", ["column", "level"], ["loud"]),
        helper.make_node("Mul", ["loud", "directions"], ["sources"]),
    ]
    outputs = {"sources": ("batch", len(CLASSES), WIDTH), "audio_prob": ("batch", len(CLASSES))}
    return _model(nodes, constants, {"waveform": (TensorProto.FLOAT, ("batch", length))}, outputs, has_presence)


def image_graph(has_presence: bool) -> onnx.ModelProto:
    """image [B, H, W, 3] uint8, sources [B, K, D] -> maps [B, K, h, w], visual_prob [B, K]."""
    (height, width), (rows, columns), count = IMAGE_SIZE, GRID, len(CLASSES)
    # opponent colours: red is what exceeds the mean of green and blue
    mixing = np.full((WIDTH, 3), 0, np.float32)
    mixing[:3] = 1.5 * np.eye(3, dtype=np.float32) - 0.5
    constants: dict[str, Any] = {
        "full": np.float32(255),
        "mixing": mixing[..., None, None],
        "flat": np.array([0, WIDTH, rows * columns], np.int64),
        "square": np.array([0, count, rows, columns], np.int64),
        "classes": np.arange(count),
        "axis": np.array([2], np.int64),
        "edge": np.float32(0.3),
        "slope": np.float32(20),
    }
    strides = [height // rows, width // columns]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=strides, strides=strides),
        helper.make_node("Conv", ["pooled", "mixing"], ["opponent"]),
        helper.make_node("Reshape", ["opponent", "flat"], ["cells"]),
        helper.make_node("MatMul", ["sources", "cells"], ["products"]),
        helper.make_node("Reshape", ["products", "square"], ["maps"]),
        helper.make_node("Gather", ["cells", "classes"], ["own"], axis=1),
        helper.make_node("ReduceMax", ["own", "axis"], ["brightest"], keepdims=0),
        helper.make_node("Sub", ["brightest", "edge"], ["above"]),
        helper.make_node("Mul", ["above", "slope"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["visual_prob"]),
    ]
    inputs = {
        "image": (TensorProto.UINT8, ("batch", height, width, 3)),
        "sources": (TensorProto.FLOAT, ("batch", count, WIDTH)),
    }
    outputs = {"maps": ("batch", count, rows, columns), "visual_prob": ("batch", count)}
    return _model(nodes, constants, inputs, outputs, has_presence)


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    inputs: dict[str, tuple[int, tuple[int | str, ...]]],
    outputs: dict[str, tuple[int | str, ...]],
    has_presence: bool,
) -> onnx.ModelProto:
    kept = {name: shape for name, shape in outputs.items() if has_presence or not name.endswith("_prob")}
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in kept.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
