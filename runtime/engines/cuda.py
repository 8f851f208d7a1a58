"""Memory, streams and graphs of the CUDA runtime, as much of them as an engine needs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.errors import FailureError, MissingExtraError


def import_cuda() -> ModuleType:
    """cuda.bindings.runtime; raises MissingExtraError without it."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingExtraError("cuda-python", "gpu") from None
    module: ModuleType = runtime
    return module


def check(answer: tuple[Any, ...]) -> Any:
    """Return what a call of the runtime gave besides its status. Raises FailureError with the status' name."""
    status, *values = answer
    if int(status) != 0:
        raise FailureError(f"CUDA failed ({status.name}): see nvidia-smi, or use --backend onnxruntime")
    return values[0] if len(values) == 1 else values


class Stream:
    """A stream of its own, that does not wait for the default one."""

    def __init__(self) -> None:
        self._cuda = import_cuda()
        self.handle = check(self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking))

    def wait(self) -> None:
        """Wait until everything queued is done."""
        check(self._cuda.cudaStreamSynchronize(self.handle))

    def capture(self, work: Callable[[], None]) -> Any:
        """Return what `work` queues, as a graph that `launch` runs; nothing is run meanwhile."""
        cuda = self._cuda
        check(cuda.cudaStreamBeginCapture(self.handle, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            work()
        finally:
            graph = check(cuda.cudaStreamEndCapture(self.handle))
        try:
            return check(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            check(cuda.cudaGraphDestroy(graph))

    def launch(self, graph: Any) -> None:
        """Queue a captured graph."""
        check(self._cuda.cudaGraphLaunch(graph, self.handle))


def destroy_graph(graph: Any) -> None:
    """Give a captured graph back."""
    check(import_cuda().cudaGraphExecDestroy(graph))


class Buffer:
    """A tensor twice: pinned on the host as a numpy array, and on the device."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._cuda = cuda = import_cuda()
        self.shape = shape
        self.size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self.device = check(cuda.cudaMalloc(self.size))
        self._pinned = check(cuda.cudaMallocHost(self.size))
        memory = memoryview((ctypes.c_ubyte * self.size).from_address(int(self._pinned))).cast("B")
        self.host: npt.NDArray[Any] = np.frombuffer(memory, dtype, count=int(np.prod(shape))).reshape(shape)

    def upload(self, stream: Stream) -> None:
        """Queue the copy to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(self._cuda.cudaMemcpyAsync(self.device, self._pinned, self.size, kind, stream.handle))

    def download(self, stream: Stream) -> None:
        """Queue the copy to the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(self._cuda.cudaMemcpyAsync(self._pinned, self.device, self.size, kind, stream.handle))

    def free(self) -> None:
        """Give both memories back."""
        self.host = np.zeros(0, self.host.dtype)
        check(self._cuda.cudaFree(self.device))
        check(self._cuda.cudaFreeHost(self._pinned))
