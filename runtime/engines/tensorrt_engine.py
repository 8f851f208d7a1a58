"""TensorRT and TensorRT for RTX: serialized engines with two streams, and pinned buffers and CUDA graphs per shape.

The two libraries share this file; they differ in their module and in how kernels for dynamic shapes come about.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import HALVES, INPUTS, OUTPUTS, TensorSpec
from avgn.runtime.engines.base import GraphEngine, check_graph, complete
from avgn.runtime.engines.cuda import Buffer, Stream, destroy_graph
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.engines.slots import Slots
from avgn.runtime.errors import InputError, MissingExtraError

DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT64": "int64", "INT32": "int32", "BOOL": "bool"}
MODULES = {"tensorrt": ("tensorrt", "gpu"), "tensorrt-rtx": ("tensorrt_rtx", "rtx")}
# shapes whose buffers and graphs are kept, per slot
SHAPES = 8
# calls of a half that are under way at once: while one computes, the other copies
SLOTS = 2


class TensorRtEngine(GraphEngine):
    """Runs engines that `avgn export --format tensorrt` wrote. Threads may share it: a half runs two calls at once."""

    library = "tensorrt"

    def __init__(
        self, bundle: Bundle, variant: Variant, *, cuda_graphs: bool = True, threads: int | None = None
    ) -> None:
        """Read both engines.

        `cuda_graphs`: record what a shape queues and replay it. `threads` are the CPU's and of no use here.
        Raises MissingExtraError without the library, InputError without a GPU, for an engine that this GPU or this
        version of the library can't read, and for tensors that are not those of bundle.json.
        """
        library = import_library(self.library)
        if isinstance(found := find_gpu(), str):
            raise InputError(f"{self.library} needs a GPU and {found}: use --backend onnxruntime")
        super().__init__(bundle.info)
        self._halves: dict[str, _Half] = {}
        for half in HALVES:
            file = bundle.graph(variant, half)
            loaded = _Half(library, file, OUTPUTS[half], cuda_graphs)
            declared = {"inputs": variant.inputs[half], "outputs": variant.outputs[half]}
            check_graph(str(file), half, bundle.info, declared, loaded.specs(INPUTS[half]))
            self._halves[half] = loaded

    @property
    def name(self) -> str:
        return self.library

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        found = self._halves[half].run(feed)
        return complete(self._info, half, found, len(next(iter(feed.values()))))


def import_library(name: str) -> Any:
    """Return the module of "tensorrt" or "tensorrt-rtx"; raises MissingExtraError where it is not installed."""
    module, extra = MODULES[name]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(module, extra) from None


class TensorRtRtxEngine(TensorRtEngine):
    """The same with TensorRT for RTX, whose kernels are compiled for the GPU at hand when they are first needed."""

    library = "tensorrt-rtx"


class _Half:
    """One engine, and slots that run it."""

    def __init__(self, library: Any, file: Path, outputs: tuple[str, ...], cuda_graphs: bool) -> None:
        self._runtime = library.Runtime(library.Logger(library.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:
            raise InputError(
                f"engine {file} can't be read by {library.__name__} {library.__version__} on this GPU: "
                "export the bundle on this machine"
            )
        names = [self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)]
        made = tuple(name for name in outputs if name in names)
        self._slots = Slots(lambda: _Slot(library, self._engine, file, made, cuda_graphs), SLOTS)

    def specs(self, inputs: tuple[str, ...]) -> dict[str, list[TensorSpec]]:
        """Return the tensors of both sides; axes that a profile leaves open are called by their place."""
        sides: dict[str, list[TensorSpec]] = {"inputs": [], "outputs": []}
        for at in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(at)
            kind = self._engine.get_tensor_dtype(name).name
            shape = tuple(
                f"axis{place}" if axis < 0 else int(axis)
                for place, axis in enumerate(tuple(self._engine.get_tensor_shape(name)))
            )
            side = "inputs" if name in inputs else "outputs"
            sides[side].append(TensorSpec(name=name, dtype=DTYPES.get(kind, kind.lower()), shape=shape))
        return sides

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        """numpy in, numpy out."""
        with self._slots.take() as slot:
            return slot.run(feed)


class _Slot:
    """A stream, and for each combination of input shapes an execution context with its buffers; one call at a time."""

    def __init__(self, library: Any, engine: Any, file: Path, outputs: tuple[str, ...], cuda_graphs: bool) -> None:
        self._library = library
        self._engine = engine
        self._file = file
        self._outputs = outputs
        self._cuda_graphs = cuda_graphs
        self._stream = Stream()
        self._shapes: OrderedDict[tuple[tuple[int, ...], ...], _Shape] = OrderedDict()

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        """numpy in, numpy out."""
        shape = self._shape(feed)
        for name, value in feed.items():
            np.copyto(shape.buffers[name].host, value, casting="no")
        if shape.graph is not None:
            self._stream.launch(shape.graph)
        else:
            self._queue(shape, feed)
        self._stream.wait()
        found = {name: np.array(shape.buffers[name].host, np.float32) for name in self._outputs}
        # the first run of a shape may still allocate: it is recorded after it
        if self._cuda_graphs and shape.graph is None:
            shape.graph = self._stream.capture(lambda: self._queue(shape, feed))
        return found

    def _queue(self, shape: _Shape, inputs: Mapping[str, Any]) -> None:
        for name in inputs:
            shape.buffers[name].upload(self._stream)
        if not shape.context.execute_async_v3(int(self._stream.handle)):
            raise InputError(f"engine {self._file} does not run on shapes {shape.sizes}: export it for larger ones")
        for name in self._outputs:
            shape.buffers[name].download(self._stream)

    def _shape(self, feed: Mapping[str, npt.NDArray[Any]]) -> _Shape:
        """Return the buffers and the context of the feed's shapes, made when they are first asked for."""
        key = tuple(value.shape for value in feed.values())
        known = self._shapes.get(key)
        if known is None:
            context = self._make_context()
            for name, value in feed.items():
                low, _, high = (tuple(row) for row in self._engine.get_tensor_profile_shape(name, 0))
                inside = all(a <= size <= b for a, size, b in zip(low, value.shape, high, strict=True))
                if not inside or not context.set_input_shape(name, value.shape):
                    raise ValueError(
                        f"{name} of shape {list(value.shape)} is outside of what the engine was built for, "
                        f"{list(low)} to {list(high)}: export it with a wider --batch or --image-size"
                    )
            known = _Shape(key, context)
            for name, value in feed.items():
                known.buffers[name] = Buffer(value.shape, value.dtype)
            for name in self._outputs:
                sizes = tuple(int(axis) for axis in context.get_tensor_shape(name))
                kind = DTYPES[self._engine.get_tensor_dtype(name).name]
                known.buffers[name] = Buffer(sizes, kind)
            for name, buffer in known.buffers.items():
                context.set_tensor_address(name, int(buffer.device))
            self._shapes[key] = known
            if len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)[1].free()
        self._shapes.move_to_end(key)
        return known

    def _make_context(self) -> Any:
        if not hasattr(self._engine, "create_runtime_config") or not hasattr(
            self._library, "DynamicShapesKernelSpecializationStrategy"
        ):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        # kernels that change under a recorded graph would not be replayed
        strategy = self._library.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        return self._engine.create_execution_context(config)


class _Shape:
    """What one combination of input shapes needs: a context, buffers, and the graph once it was recorded.

    A recorded graph keeps the addresses of its context's memory, so contexts are not shared between shapes.
    """

    def __init__(self, sizes: tuple[tuple[int, ...], ...], context: Any) -> None:
        self.sizes = sizes
        self.context = context
        self.buffers: dict[str, Buffer] = {}
        self.graph: Any = None

    def free(self) -> None:
        if self.graph is not None:
            destroy_graph(self.graph)
        self.context = self.graph = None
        for buffer in self.buffers.values():
            buffer.free()
