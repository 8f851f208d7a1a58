"""ONNX Runtime on a GPU: a session for each shape of inputs, whose tensors stay in buffers of their own."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, BundleInfo, Variant
from avgn.runtime.contract import HALVES, TensorSpec
from avgn.runtime.engines.base import complete
from avgn.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, import_onnxruntime
from avgn.runtime.errors import InputError
from avgn.runtime.files import cache_folder

log = logging.getLogger("avgn.runtime")

Feed = dict[str, npt.NDArray[Any]]
T = TypeVar("T")

# shapes whose sessions and buffers are kept, per half
SHAPES = 8
# least, usual and most of the axes that graphs leave open, for the TensorRT provider
BATCH = (1, 1, 16)
SIDES = (32, 640)


class BoundEngine(OnnxRuntimeEngine):
    """Inputs and outputs are bound to buffers on `device`, and each combination of shapes has a session of its own.

    What a session chooses for a shape (algorithms, a recorded graph) can't depend on the shapes that came before, so
    the same input gives the same output every time.
    """

    device = "cpu"
    # the sessions' axes are fixed to the sizes that they are made for
    fixed = True

    def __init__(self, bundle: Bundle, variant: Variant, **options: Any) -> None:
        super().__init__(bundle, variant, **options)
        self._variant = variant
        self._shapes: dict[str, OrderedDict[Any, _Binding]] = {half: OrderedDict() for half in self._files}
        self._turn = Lock()

    def _run(self, half: str, feed: Feed) -> dict[str, Floats]:
        found = dict(zip(self._names[half], self._alone(lambda: self._bound(half, feed).run(feed)), strict=True))
        return complete(self._info, half, found, len(next(iter(feed.values()))))

    def _alone(self, work: Callable[[], T]) -> T:
        """Do something that no other call may do at the same time."""
        with self._turn:
            return work()

    def _bound(self, half: str, feed: Feed) -> _Binding:
        """Return the session and the buffers of the feed's shapes, made when they are first asked for."""
        known = self._shapes[half]
        key = tuple(value.shape for value in feed.values())
        if key not in known:
            sizes = self._sizes(half, feed)
            session = self._session(half, sizes) if self.fixed else self._sessions[half]
            outputs = {
                spec.name: tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape)
                for spec in self._variant.outputs[half]
                if spec.name in self._names[half]
            }
            known[key] = _Binding(session, {name: outputs[name] for name in self._names[half]}, feed, self.device)
            if len(known) > SHAPES:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    def _session(self, half: str, sizes: Mapping[str, int]) -> Any:
        return self._open(half, self._overrides(half, sizes))

    def _sizes(self, half: str, feed: Feed) -> dict[str, int]:
        """Return the axes that bundle.json leaves open, by its names."""
        sizes: dict[str, int] = {}
        for spec in self._variant.inputs[half]:
            for axis, size in zip(spec.shape, feed[spec.name].shape, strict=True):
                if isinstance(axis, str):
                    sizes[axis] = size
        if half == "image":
            sizes |= _cells(self._info, feed["image"].shape[1:3], self._variant.outputs[half])
        return sizes

    def _overrides(self, half: str, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the same axes by the names that they have in the graph."""
        specs = {spec.name: spec for spec in self._variant.inputs[half]}
        found: dict[str, int] = {}
        for value in self._sessions[half].get_inputs():
            for theirs, ours in zip(value.shape, specs[value.name].shape, strict=True):
                if isinstance(theirs, str) and isinstance(ours, str):
                    found[theirs] = sizes[ours]
        return found


class CudaEngine(BoundEngine):
    """The CUDA provider, in full fp32 (no TF32), with a CUDA graph for each shape."""

    device = "cuda"
    provider = "CUDAExecutionProvider"

    def __init__(
        self, bundle: Bundle, variant: Variant, *, threads: int | None = None, cuda_graphs: bool = True
    ) -> None:
        """Raises InputError where the provider can't start, as OnnxRuntimeEngine does for everything else."""
        library = import_onnxruntime()
        if hasattr(library, "preload_dlls"):
            # CUDA's and cuDNN's libraries as pip installed them
            library.preload_dlls()
        self._cuda_graphs = cuda_graphs
        providers = [(self.provider, self._options(variant)), *self._behind(), "CPUExecutionProvider"]
        super().__init__(bundle, variant, threads=threads, providers=providers)
        for half, session in self._sessions.items():
            if session.get_providers()[0] != self.provider:
                raise InputError(
                    f"{self.provider} did not start for the {half} graph: see that CUDA and cuDNN fit "
                    f"onnxruntime-gpu {library.__version__}, or use --backend onnxruntime"
                )

    @property
    def name(self) -> str:
        return "onnxruntime-cuda"

    def _alone(self, work: Callable[[], T]) -> T:
        # a session's recorded graph belongs to the thread that recorded it, and nothing else may call CUDA meanwhile
        return _worker().submit(work).result()

    def _session(self, half: str, sizes: Mapping[str, int]) -> Any:
        """Return a session with a CUDA graph, or without where the graph of a model can't be recorded."""
        axes = self._overrides(half, sizes)
        if not self._cuda_graphs:
            return self._open(half, axes)
        recorded = (self.provider, self._options(self._variant) | {"enable_cuda_graph": "1"})
        try:
            return self._open(half, axes, [recorded, "CPUExecutionProvider"])
        except InputError as error:
            log.info("%s: no CUDA graph of the %s half: %s", self.name, half, error)
            self._cuda_graphs = False
            return self._open(half, axes)

    def _options(self, variant: Variant) -> dict[str, Any]:
        # EXHAUSTIVE chooses by times that it takes at each new shape: the same input gave other results afterwards
        return {"device_id": 0, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}

    def _behind(self) -> list[Any]:
        """Return the providers that take what the first one leaves."""
        return []


class TensorRtProviderEngine(CudaEngine):
    """The TensorRT provider: it builds engines at the first load, which takes minutes, and keeps them in the cache."""

    provider = "TensorrtExecutionProvider"
    # an engine takes a range of shapes
    fixed = False

    def __init__(self, bundle: Bundle, variant: Variant, *, threads: int | None = None) -> None:
        """As CudaEngine."""
        with contextlib.suppress(ImportError):
            # its libraries as pip installed them
            importlib.import_module("tensorrt")
        super().__init__(bundle, variant, threads=threads, cuda_graphs=False)

    @property
    def name(self) -> str:
        return "onnxruntime-tensorrt"

    def _options(self, variant: Variant) -> dict[str, Any]:
        folder = cache_folder() / "onnxruntime-tensorrt"
        folder.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {
            "device_id": 0,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(folder),
            "trt_fp16_enable": variant.precision == "fp16",
            "trt_int8_enable": variant.precision == "int8-gpu",
        }
        specs = [spec for half in HALVES for spec in variant.inputs[half]]
        for at, which in enumerate(("min", "opt", "max")):
            options[f"trt_profile_{which}_shapes"] = ",".join(f"{spec.name}:{_profile(spec, at)}" for spec in specs)
        return options

    def _behind(self) -> list[Any]:
        return [("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"})]


class _Binding:
    """A session with the buffers of one combination of input shapes: their addresses never change."""

    def __init__(self, session: Any, outputs: Mapping[str, tuple[int, ...]], feed: Feed, device: str) -> None:
        values = import_onnxruntime().OrtValue
        self._session = session
        self._binding = session.io_binding()
        self._inputs: dict[str, Any] = {}
        for name, value in feed.items():
            # a copy: the buffer is written anew by every run
            self._inputs[name] = values.ortvalue_from_numpy(np.array(value, order="C"), device, 0)
            self._binding.bind_ortvalue_input(name, self._inputs[name])
        self._outputs = [
            values.ortvalue_from_shape_and_type(list(shape), np.float32, device, 0) for shape in outputs.values()
        ]
        for name, value in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def run(self, feed: Feed) -> list[Floats]:
        """numpy in, numpy out, in the order of the session's outputs."""
        for name, value in feed.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(value))
        self._session.run_with_iobinding(self._binding)
        return [np.array(value.numpy(), np.float32) for value in self._outputs]


@cache
def _worker() -> ThreadPoolExecutor:
    """Return the one thread that all sessions with CUDA graphs of this process run in."""
    return ThreadPoolExecutor(1, thread_name_prefix="avgn-onnxruntime-cuda")


def _cells(info: BundleInfo, size: tuple[int, ...], specs: tuple[TensorSpec, ...]) -> dict[str, int]:
    """Return the open axes of the maps for pictures of another size: cells are as large as at the bundle's own."""
    maps = next((spec.shape[2:] for spec in specs if spec.name == "maps"), ())
    cells = [side * count // whole for side, count, whole in zip(size, info.grid, info.image_size, strict=True)]
    return {axis: count for axis, count in zip(maps, cells, strict=False) if isinstance(axis, str)}


def _profile(spec: TensorSpec, at: int) -> str:
    sizes = []
    for place, axis in enumerate(spec.shape):
        if isinstance(axis, int):
            sizes.append(axis)
        else:
            sizes.append(BATCH[at] if place == 0 else (SIDES[0], 224, SIDES[1])[at])
    return "x".join(str(size) for size in sizes)
