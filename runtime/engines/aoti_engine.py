"""AOTInductor packages: each half compiled to a library of its own, on the CPU or (with CUDA graphs) on a GPU.

PyTorch is this engine's own library: it is imported here alone, and not before an engine is made.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import HALVES, OUTPUTS
from avgn.runtime.engines.base import GraphEngine, check_graph, complete
from avgn.runtime.engines.slots import Slots
from avgn.runtime.engines.trust import checked_bytes
from avgn.runtime.errors import InputError, MissingExtraError

Feed = Mapping[str, npt.NDArray[Any]]

# as in the TensorRT engine: shapes whose buffers and graphs are kept, and calls of a half that are under way at once
SHAPES = 8
SLOTS = 2
# one graph is recorded at a time, and settings of the whole program hold while it is
_recording = threading.Lock()


class AotiEngine(GraphEngine):
    """Runs packages that `avgn export --format aoti` wrote; threads may share it.

    A package is machine code: those that this machine has not built are refused (`avgn.runtime.engines.trust`).
    """

    def __init__(
        self, bundle: Bundle, variant: Variant, *, threads: int | None = None, cuda_graphs: bool = True
    ) -> None:
        """Load both packages.

        `threads` (for packages of the CPU): default PyTorch's own. `cuda_graphs`: record what a shape queues on a GPU
        and replay it. Raises InputError for packages that may not or can't run here and for tensors that don't fit
        the bundle, MissingExtraError without PyTorch.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}: leave it out to use all physical cores")
        super().__init__(bundle.info)
        self._halves: dict[str, Slots[Any]] = {}
        for half in HALVES:
            data = checked_bytes(bundle, variant, half)
            declared = {"inputs": variant.inputs[half], "outputs": variant.outputs[half]}
            check_graph(str(bundle.graph(variant, half)), half, bundle.info, declared, declared)
            torch = _import_torch()
            where = str(bundle.graph(variant, half))
            if variant.target.startswith("sm_"):
                self._halves[half] = Slots(_gpu_slots(torch, where, data, cuda_graphs), SLOTS)
            else:
                self._halves[half] = Slots(_cpu_slots(torch, where, data, threads), SLOTS)
            # a package that can't be loaded is said here, not at the first frame
            with self._halves[half].take():
                pass

    @property
    def name(self) -> str:
        return "aoti"

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        with self._halves[half].take() as slot:
            found = dict(zip(OUTPUTS[half], slot.run(feed), strict=True))
        return complete(self._info, half, found, len(next(iter(feed.values()))))


def _import_torch() -> ModuleType:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    module: ModuleType = torch
    return module


def _load(where: str, data: bytes, *, on_gpu: bool) -> Any:
    from torch._inductor import aoti_load_package

    try:
        with _untried(on_gpu):
            # a slot has a package of its own: it takes no turns, which a recorded graph could not
            return aoti_load_package(io.BytesIO(data), run_single_threaded=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"package {where} can't be loaded ({reason}): export the bundle here") from None


@contextmanager
def _untried(on_gpu: bool) -> Iterator[None]:
    """Let PyTorch take the processor's word for its vector instructions.

    It compares them with those that a package was built with, and would try each by a program that imports PyTorch
    first: seconds, which on a GPU, whose packages have none, are for nothing. The target of a package was compared
    before it is loaded.
    """
    from torch._inductor import config, cpu_vec_isa

    forget = getattr(cpu_vec_isa.valid_vec_isa_list, "cache_clear", lambda: None)
    forget()
    try:
        with config.patch({"cpp.vec_isa_ok": not on_gpu}):
            yield
    finally:
        # what this program compiles itself is tried as ever
        forget()


def _cpu_slots(torch: Any, where: str, data: bytes, threads: int | None) -> Any:
    return lambda: _CpuSlot(torch, _load(where, data, on_gpu=False), threads)


def _gpu_slots(torch: Any, where: str, data: bytes, cuda_graphs: bool) -> Any:
    return lambda: _GpuSlot(torch, _load(where, data, on_gpu=True), cuda_graphs)


class _CpuSlot:
    """A package on the CPU; one call at a time."""

    def __init__(self, torch: Any, package: Any, threads: int | None) -> None:
        self._torch = torch
        self._package = package
        self._threads = threads

    def run(self, feed: Feed) -> list[Floats]:
        """numpy in, numpy out."""
        torch = self._torch
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        given = [torch.from_numpy(np.ascontiguousarray(value)) for value in feed.values()]
        # a copy: what does not depend on the input is the package's own memory
        return [np.array(value.numpy(), np.float32) for value in self._package(*given)]


class _GpuSlot:
    """A package on a stream of its own, and for each combination of input shapes its buffers and its graph."""

    def __init__(self, torch: Any, package: Any, cuda_graphs: bool) -> None:
        self._torch = torch
        self._package = package
        self._cuda_graphs = cuda_graphs
        self._stream = torch.cuda.Stream()
        self._shapes: OrderedDict[tuple[tuple[int, ...], ...], _Shape] = OrderedDict()

    def run(self, feed: Feed) -> list[Floats]:
        """numpy in, numpy out."""
        key = tuple(value.shape for value in feed.values())
        with self._torch.cuda.stream(self._stream):
            if key not in self._shapes:
                self._shapes[key] = _Shape(self._torch, self._package, feed, self._cuda_graphs)
                if len(self._shapes) > SHAPES:
                    self._shapes.popitem(last=False)
            self._shapes.move_to_end(key)
            return self._shapes[key].run(feed)


class _Shape:
    """Pinned and device memory of one combination of input shapes, and the recorded graph; made on its stream."""

    def __init__(self, torch: Any, package: Any, feed: Feed, cuda_graphs: bool) -> None:
        self._torch = torch
        self._package = package
        self._host = [torch.from_numpy(np.ascontiguousarray(value)).pin_memory() for value in feed.values()]
        self._device = [value.to("cuda") for value in self._host]
        self._graph: Any = None
        with _recording, _exact(torch):
            # the first runs load code and choose algorithms
            for _ in range(2):
                self._made = list(package(*self._device))
            torch.cuda.current_stream().synchronize()
            if cuda_graphs:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
                ):
                    self._made = [value.float() for value in package(*self._device)]
        self._results = [torch.empty(value.shape, dtype=torch.float32, pin_memory=True) for value in self._made]

    def run(self, feed: Feed) -> list[Floats]:
        """numpy in, numpy out."""
        for value, host, device in zip(feed.values(), self._host, self._device, strict=True):
            np.copyto(host.numpy(), value, casting="no")
            device.copy_(host, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        else:
            with _recording, _exact(self._torch):
                self._made = list(self._package(*self._device))
        for made, result in zip(self._made, self._results, strict=True):
            result.copy_(made, non_blocking=True)
        self._torch.cuda.current_stream().synchronize()
        return [np.array(result.numpy()) for result in self._results]


@contextmanager
def _exact(torch: Any) -> Iterator[None]:
    """Convolutions with all bits of float32, by algorithms that give the same result every time."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
