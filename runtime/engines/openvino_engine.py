"""OpenVINO on the CPU: compiled models per half and batch size, one inference request per thread for each."""

from __future__ import annotations

import sys
import threading
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import HALVES, INPUTS, OUTPUTS, TensorSpec
from avgn.runtime.engines.base import GraphEngine, check_graph, complete
from avgn.runtime.engines.threads import physical_cores
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.memory import refuse_shortage

DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i64": "int64", "i32": "int32", "i8": "int8"}
PIECES = (4, 1)
# the key of the plan for any shape
ANY = 0


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry; raises MissingExtraError when it is not installed.

    With `openvino_telemetry`, importing it reports to a server from a forked process. FFmpeg's threads are not in the
    fork: where a thread held a picture scaler of PyAV's, the child waits for them for ever, and the parent for it.
    """
    name = "openvino_telemetry"
    held = sys.modules.get(name)
    # OpenVINO takes its stand-in where this can't be imported
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", error) from None
    finally:
        if held is None:
            del sys.modules[name]
        else:
            sys.modules[name] = held
    module: ModuleType = openvino
    return module


@cache
def openvino_core() -> Any:
    """Return the process's one OpenVINO core, which is never freed; raises MissingExtraError without openvino.

    A core's CPU plugin gives the thread that first uses it a stack for signals, and frees that stack with the core,
    though it may be the thread's still: where cores end in the order in which they began, or on another thread. The
    next Ctrl-C, SIGTERM or end of a child would then end the process with a segmentation fault.
    """
    return import_openvino().Core()


class OpenVinoEngine(GraphEngine):
    """Runs a variant's ONNX graphs; threads may share it.

    Plans for fixed shapes are up to a third faster than one for any shape, so batches at the bundle's own picture size
    are cut into pieces of the sizes PIECES, each with a plan of its own, made when it is first needed.
    """

    def __init__(
        self, bundle: Bundle, variant: Variant, *, threads: int | None = None, inference_precision: str | None = None
    ) -> None:
        """Compile both graphs for single samples.

        `threads`: default the physical cores. `inference_precision`: "f32", "bf16" or "f16"; by default fp32 graphs are
        computed in f32 and the others as OpenVINO likes best on this processor. Raises MissingExtraError without
        openvino, InputError for a graph that can't be loaded or whose tensors are not those of bundle.json.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}: leave it out to use all physical cores")
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or physical_cores(),
        }
        if inference_precision is None and variant.precision == "fp32":
            inference_precision = "f32"
        if inference_precision is not None:
            self._settings["INFERENCE_PRECISION_HINT"] = inference_precision
        super().__init__(bundle.info)
        self._graphs: dict[str, Any] = {}
        self._plans: dict[tuple[str, int], Any] = {}
        self._outputs: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._core = openvino_core()
        for half in HALVES:
            file = bundle.graph(variant, half)
            try:
                graph = self._graphs[half] = self._core.read_model(str(file))
                declared = {"inputs": variant.inputs[half], "outputs": variant.outputs[half]}
                found = {"inputs": _specs(graph.inputs, INPUTS[half]), "outputs": _specs(graph.outputs, OUTPUTS[half])}
                check_graph(str(file), half, bundle.info, declared, found)
                self._outputs[half] = [name for name in OUTPUTS[half] if _has(graph, name)]
                self._plan(half, 1)
            except InputError:
                raise
            except Exception as error:
                refuse_shortage(error)
                reason = " ".join(str(error).split())[:160]
                raise InputError(f"graph {file} can't be loaded ({reason}): export the bundle again") from None

    @property
    def name(self) -> str:
        return "openvino"

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        given = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        batch = len(next(iter(given.values())))
        fixed = half == "audio" or given["image"].shape[1:3] == tuple(self._info.image_size)
        parts, start = [], 0
        while start < batch:
            size = next(size for size in PIECES if size <= batch - start) if fixed else batch
            piece = {name: value[start : start + size] for name, value in given.items()}
            results = self._request(half, size if fixed else ANY).infer(piece, share_inputs=True)
            # the request's own memory is written again by the next run
            parts.append([np.array(results[name], np.float32) for name in self._outputs[half]])
            start += size
        values = parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]
        return complete(self._info, half, dict(zip(self._outputs[half], values, strict=True)), batch)

    def _request(self, half: str, size: int) -> Any:
        requests = self._local.__dict__
        key = f"{half} {size}"
        if key not in requests:
            requests[key] = self._plan(half, size).create_infer_request()
        return requests[key]

    def _plan(self, half: str, size: int) -> Any:
        """Return the half compiled for batches of `size` at the bundle's picture size, or for ANY."""
        with self._lock:
            if (half, size) not in self._plans:
                graph = self._graphs[half]
                if size != ANY:
                    graph = graph.clone()
                    graph.reshape({port: self._shape(port, half, size) for port in graph.inputs})
                self._plans[half, size] = self._core.compile_model(graph, "CPU", self._settings)
            return self._plans[half, size]

    def _shape(self, port: Any, half: str, size: int) -> list[int]:
        shape = [axis.get_length() if axis.is_static else -1 for axis in port.get_partial_shape()]
        shape[0] = size
        if half == "image" and "image" in port.get_names():
            shape[1:3] = self._info.image_size
        return shape


def _has(model: Any, name: str) -> bool:
    return any(name in port.get_names() for port in model.outputs)


def _specs(ports: Any, names: tuple[str, ...]) -> list[TensorSpec]:
    """Return a port has every name that its tensor had on the way: the contract's counts."""
    specs = []
    for port in ports:
        shape = tuple(
            axis.get_length() if axis.is_static else f"axis{at}" for at, axis in enumerate(port.get_partial_shape())
        )
        kind = port.get_element_type().to_string()
        name = next((name for name in names if name in port.get_names()), port.get_any_name())
        specs.append(TensorSpec(name=name, dtype=DTYPES.get(kind, kind), shape=shape))
    return specs
