"""Counts what a bundle's model has to compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from avgn.benchmarking.timing import make_inputs
from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import InputError, MissingExtraError


def count_operations(job: dict[str, Any]) -> dict[str, Any]:
    """Count the multiply-adds of the convolutions and matrix products of one sample: {"audio", "image"}, from the fp32
    graphs.

    Raises InputError for a bundle without them, MissingExtraError without the package onnx.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "teach", error) from None

    from avgn.export.cost import multiply_adds

    bundle = Bundle.load(job["bundle"])
    variant = next((v for v in bundle.variants if v.precision == "fp32" and v.engine == "onnxruntime"), None)
    if variant is None:
        raise InputError(f"bundle {bundle.path} holds no fp32 ONNX graphs to count operations in: export it with them")
    waveform, image = make_inputs(bundle.info, 1)
    shape = next(spec.shape for spec in variant.outputs["audio"] if spec.name == "sources")
    sources = np.zeros((1, *(int(axis) for axis in shape[1:])), np.float32)
    feeds: dict[str, dict[str, Any]] = {"audio": {"waveform": waveform}, "image": {"image": image, "sources": sources}}
    return {
        half: sum(multiply_adds(onnx.load(str(bundle.graph(variant, half))), feed).values())
        for half, feed in feeds.items()
    }
