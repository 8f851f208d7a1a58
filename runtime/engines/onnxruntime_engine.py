"""ONNX Runtime on the CPU: one session per half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import HALVES, TensorSpec
from avgn.runtime.engines.base import GraphEngine, check_graph, complete
from avgn.runtime.engines.threads import physical_cores
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.memory import refuse_shortage

DTYPES = {"float": "float32", "float16": "float16", "uint8": "uint8", "int64": "int64", "int32": "int32"}


def import_onnxruntime() -> ModuleType:
    """onnxruntime; raises MissingExtraError when it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", error) from None
    module: ModuleType = onnxruntime
    return module


class OnnxRuntimeEngine(GraphEngine):
    """Runs a variant's ONNX graphs; sessions are thread-safe, so one engine serves many streams."""

    def __init__(
        self, bundle: Bundle, variant: Variant, *, threads: int | None = None, providers: Sequence[Any] | None = None
    ) -> None:
        """Load both graphs.

        `threads`: per graph, default the physical cores. Raises MissingExtraError without onnxruntime, InputError for
        a graph that can't be loaded or whose tensors are not those of bundle.json.
        """
        self._library = import_onnxruntime()
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}: leave it out to use all physical cores")
        super().__init__(bundle.info)
        self._threads = threads or physical_cores()
        self._providers = list(providers or ["CPUExecutionProvider"])
        self._files = {half: bundle.graph(variant, half) for half in HALVES}
        self._sessions: dict[str, Any] = {}
        for half, file in self._files.items():
            session = self._open(half)
            declared = {"inputs": variant.inputs[half], "outputs": variant.outputs[half]}
            found = {"inputs": _specs(session.get_inputs()), "outputs": _specs(session.get_outputs())}
            check_graph(str(file), half, bundle.info, declared, found)
            self._sessions[half] = session
        self._names = {half: [spec.name for spec in s.get_outputs()] for half, s in self._sessions.items()}

    @property
    def name(self) -> str:
        return "onnxruntime"

    def _open(self, half: str, sizes: Mapping[str, int] | None = None, providers: Sequence[Any] | None = None) -> Any:
        """Return a session of a half; `sizes` fixes axes that its graph leaves open, by their names."""
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # spinning threads would take the cores that decoding and encoding need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for axis, size in (sizes or {}).items():
            options.add_free_dimension_override_by_name(axis, size)
        try:
            return self._library.InferenceSession(
                str(self._files[half]), options, providers=list(providers or self._providers)
            )
        except Exception as error:
            refuse_shortage(error)
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"graph {self._files[half]} can't be loaded ({reason}): export the bundle again") from None

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        values = self._sessions[half].run(self._names[half], feed)
        found = {name: np.asarray(value, np.float32) for name, value in zip(self._names[half], values, strict=True)}
        return complete(self._info, half, found, len(next(iter(feed.values()))))


def _specs(values: Sequence[Any]) -> list[TensorSpec]:
    specs = []
    for value in values:
        dtype = value.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(axis if isinstance(axis, int) else str(axis or "?") for axis in value.shape)
        specs.append(TensorSpec(name=value.name, dtype=DTYPES.get(dtype, dtype), shape=shape))
    return specs
