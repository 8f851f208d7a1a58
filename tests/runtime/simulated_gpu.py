"""A device that this machine doesn't have: CUDA's memory, streams and graphs, and TensorRT's engines, on the CPU.

It keeps what the engines' code relies on and what a GPU would punish: queued work runs when its stream is waited for,
fresh memory holds NaN, nothing may be allocated while a graph is recorded, a replayed graph uses the addresses of its
recording. Engines compute by ONNX Runtime. What it can't show is whether the real libraries behave as described.
"""

from __future__ import annotations

import ctypes
import enum
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from avgn.runtime.engines import cuda, tensorrt_engine
from avgn.runtime.engines.gpu import Gpu

DTYPES = {"tensor(uint8)": ("UINT8", np.uint8), "tensor(float)": ("FLOAT", np.float32)}
LARGEST = 1024


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorStreamCaptureUnsupported = 900


class Stream:
    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None

    def add(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)


class Cuda:
    """What the engines call of cuda.bindings.runtime; `calls` counts it."""

    cudaStreamNonBlocking = 1
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.streams: dict[int, Stream] = {}
        self._memory: dict[int, Any] = {}
        self._recorders: set[int] = set()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Pieces of memory that were not given back."""
        return len(self._memory)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        with self._lock:
            self.streams[len(self.streams) + 1] = Stream()
            return Status.cudaSuccess, len(self.streams)

    def cudaStreamSynchronize(self, handle: int) -> tuple[Any, ...]:
        stream = self.streams[handle]
        if stream.recording is not None:
            return (Status.cudaErrorStreamCaptureUnsupported,)
        while stream.queue:
            stream.queue.pop(0)()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, handle: int, mode: int) -> tuple[Any, ...]:
        self.streams[handle].recording = []
        self._recorders.add(threading.get_ident())
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, handle: int) -> tuple[Any, ...]:
        stream = self.streams[handle]
        graph, stream.recording = stream.recording, None
        self._recorders.discard(threading.get_ident())
        return Status.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        self.calls["recorded"] += 1
        return Status.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        graph.clear()
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:
        self.calls["destroyed"] += 1
        return self.cudaGraphDestroy(graph)

    def cudaGraphLaunch(self, graph: Any, handle: int) -> tuple[Any, ...]:
        self.calls["launched"] += 1
        for work in graph:
            self.streams[handle].add(work)
        return (Status.cudaSuccess,)

    def _allocate(self, size: int) -> tuple[Any, ...]:
        if threading.get_ident() in self._recorders:
            return Status.cudaErrorStreamCaptureUnsupported, 0
        with self._lock:
            self.calls["allocated"] += 1
            memory = (ctypes.c_ubyte * size).from_buffer_copy(b"\xff" * size)
            self._memory[ctypes.addressof(memory)] = memory
            return Status.cudaSuccess, ctypes.addressof(memory)

    cudaMalloc = cudaMallocHost = _allocate

    def _free(self, address: int) -> tuple[Any, ...]:
        with self._lock:
            found = self._memory.pop(address, None)
        return (Status.cudaErrorInvalidValue if found is None else Status.cudaSuccess,)

    cudaFree = cudaFreeHost = _free

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, handle: int) -> tuple[Any, ...]:
        for address in (to, source):
            if address not in self._memory or len(self._memory[address]) < size:
                return (Status.cudaErrorInvalidValue,)

        def copy() -> None:
            ctypes.memmove(to, source, size)

        self.streams[handle].add(copy)
        return (Status.cudaSuccess,)


class Context:
    """One execution context: shapes, addresses, and work that is queued."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            zeros = {value.name: np.zeros(self._shapes[value.name], DTYPES[value.type][1]) for value in self._inputs}
            self._shapes |= {key: value.shape for key, value in self._run(zeros).items()}
        return self._shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self._engine.device.streams[handle].add(self._compute)
        return True

    @property
    def _inputs(self) -> list[Any]:
        return list(self._engine.session.get_inputs())

    def _compute(self) -> None:
        feed = {value.name: self._view(value.name, DTYPES[value.type][1]).copy() for value in self._inputs}
        for name, value in self._run(feed).items():
            self._view(name, np.float32)[...] = value

    def _run(self, feed: dict[str, Any]) -> dict[str, Any]:
        names = [value.name for value in self._engine.session.get_outputs()]
        return dict(zip(names, self._engine.session.run(names, feed), strict=True))

    def _view(self, name: str, dtype: Any) -> Any:
        shape = self._shapes[name]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_ubyte * size).from_address(self._addresses[name]), dtype).reshape(shape)


class Engine:
    """An ONNX graph with the face of a TensorRT engine; axes without a number take 1 to 1024."""

    def __init__(self, device: Cuda, graph: bytes) -> None:
        self.device = device
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self._tensors = {value.name: value for value in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, at: int) -> str:
        return list(self._tensors)[at]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=DTYPES[self._tensors[name].type][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self._tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        shape = self.get_tensor_shape(name)
        return tuple(tuple(size if axis < 0 else axis for axis in shape) for size in (1, 32, LARGEST))

    def create_execution_context(self) -> Context:
        return Context(self)


def library(device: Cuda) -> Any:
    """The module tensorrt."""

    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None: ...

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...

        def deserialize_cuda_engine(self, data: bytes) -> Engine:
            return Engine(device, data)

    return SimpleNamespace(Logger=Logger, Runtime=Runtime, __name__="tensorrt", __version__="simulated")


@contextmanager
def simulated() -> Iterator[Cuda]:
    """The device in the place of CUDA, the driver and TensorRT."""
    device = Cuda()
    made = library(device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "import_cuda", lambda: device)
        patch.setattr(tensorrt_engine, "import_library", lambda name: made)
        patch.setattr(tensorrt_engine, "find_gpu", lambda: Gpu(name="simulated", capability=(8, 9)))
        yield device
