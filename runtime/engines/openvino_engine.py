"""OpenVINO on the CPU: one compiled model per half, one inference request per thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.bundle import Bundle, TensorSpec, Variant
from avgn.runtime.engines.base import INPUTS, OUTPUTS, GraphEngine, check_graph, complete
from avgn.runtime.errors import InputError, MissingExtraError

Floats = npt.NDArray[np.float32]

DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i64": "int64", "i32": "int32", "i8": "int8"}


class OpenVinoEngine(GraphEngine):
    """Runs a variant's ONNX graphs; threads may share it."""

    def __init__(
        self, bundle: Bundle, variant: Variant, *, threads: int | None = None, inference_precision: str | None = None
    ) -> None:
        """Compile both graphs.

        `threads`: default OpenVINO's choice. `inference_precision`: "f32", "bf16" or "f16"; by default fp32 graphs are
        computed in f32 and the others as OpenVINO likes best on this processor. Raises MissingExtraError without
        openvino, InputError for a graph that can't be compiled or whose tensors are not those of bundle.json.
        """
        try:
            import openvino
        except ImportError:
            raise MissingExtraError("openvino", "openvino") from None
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}: leave it out to let OpenVINO choose")
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if inference_precision is None and variant.precision == "fp32":
            inference_precision = "f32"
        if inference_precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = inference_precision
        super().__init__(bundle.info)
        self._models: dict[str, Any] = {}
        self._local = threading.local()
        core = openvino.Core()
        for half in ("audio", "image"):
            file = bundle.graph(variant, half)
            try:
                model = core.compile_model(str(file), "CPU", settings)
            except Exception as error:
                reason = " ".join(str(error).split())[:160]
                raise InputError(f"graph {file} can't be compiled ({reason}): export the bundle again") from None
            declared = {"inputs": variant.inputs[half], "outputs": variant.outputs[half]}
            found = {"inputs": _specs(model.inputs, INPUTS[half]), "outputs": _specs(model.outputs, OUTPUTS[half])}
            check_graph(str(file), half, bundle.info, declared, found)
            self._models[half] = model

    @property
    def name(self) -> str:
        return "openvino"

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        requests = self._local.__dict__
        if half not in requests:
            requests[half] = self._models[half].create_infer_request()
        given = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        results = requests[half].infer(given, share_inputs=True)
        found = {name: np.array(results[name], np.float32) for name in OUTPUTS[half] if _has(self._models[half], name)}
        return complete(self._info, half, found, len(next(iter(feed.values()))))


def _has(model: Any, name: str) -> bool:
    return any(name in port.get_names() for port in model.outputs)


def _specs(ports: Any, names: tuple[str, ...]) -> list[TensorSpec]:
    """A port has every name that its tensor had on the way: the contract's counts."""
    specs = []
    for port in ports:
        shape = tuple(
            axis.get_length() if axis.is_static else f"axis{at}" for at, axis in enumerate(port.get_partial_shape())
        )
        kind = port.get_element_type().to_string()
        name = next((name for name in names if name in port.get_names()), port.get_any_name())
        specs.append(TensorSpec(name=name, dtype=DTYPES.get(kind, kind), shape=shape))
    return specs
