"""ONNX Runtime on a GPU, with I/O binding: tensors stay in buffers of their own between the calls."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.bundle import Bundle, TensorSpec, Variant
from avgn.runtime.engines.base import complete
from avgn.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, import_onnxruntime
from avgn.runtime.errors import InputError
from avgn.runtime.files import cache_folder

Floats = npt.NDArray[np.float32]

SHAPES = 8
# least, usual and most of the axes that graphs leave open, for the TensorRT provider
BATCH = (1, 1, 16)
SIDES = (32, 640)


class BoundEngine(OnnxRuntimeEngine):
    """Sessions whose inputs and outputs are bound to buffers on `device`."""

    device = "cpu"

    def __init__(self, bundle: Bundle, variant: Variant, **options: Any) -> None:
        super().__init__(bundle, variant, **options)
        self._local = threading.local()

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        known: OrderedDict[Any, _Binding] = self._local.__dict__.setdefault(half, OrderedDict())
        key = tuple(value.shape for value in feed.values())
        if key not in known:
            known[key] = _Binding(self._sessions[half], self._names[half], feed, self.device)
            if len(known) > SHAPES:
                known.popitem(last=False)
        known.move_to_end(key)
        found = dict(zip(self._names[half], known[key].run(feed), strict=True))
        return complete(self._info, half, found, len(next(iter(feed.values()))))


class CudaEngine(BoundEngine):
    """The CUDA provider, in full fp32 (no TF32)."""

    device = "cuda"
    provider = "CUDAExecutionProvider"

    def __init__(self, bundle: Bundle, variant: Variant, *, threads: int | None = None) -> None:
        """Raises InputError where the provider can't start, as OnnxRuntimeEngine does for everything else."""
        library = import_onnxruntime()
        if hasattr(library, "preload_dlls"):
            # CUDA's and cuDNN's libraries as pip installed them
            library.preload_dlls()
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

    def _options(self, variant: Variant) -> dict[str, Any]:
        return {"device_id": 0, "use_tf32": 0, "cudnn_conv_algo_search": "EXHAUSTIVE"}

    def _behind(self) -> list[Any]:
        """The providers that take what the first one leaves."""
        return []


class TensorRtProviderEngine(CudaEngine):
    """The TensorRT provider: it builds engines at the first load, which takes minutes, and keeps them in the cache."""

    provider = "TensorrtExecutionProvider"

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
        specs = [spec for half in ("audio", "image") for spec in variant.inputs[half]]
        for at, which in enumerate(("min", "opt", "max")):
            options[f"trt_profile_{which}_shapes"] = ",".join(f"{spec.name}:{_profile(spec, at)}" for spec in specs)
        return options

    def _behind(self) -> list[Any]:
        return [("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0})]


class _Binding:
    """Buffers of one combination of input shapes; after the first run nothing is allocated on the device."""

    def __init__(self, session: Any, outputs: list[str], feed: dict[str, npt.NDArray[Any]], device: str) -> None:
        library = import_onnxruntime()
        self._session = session
        self._binding = session.io_binding()
        self._inputs: dict[str, Any] = {}
        for name, value in feed.items():
            # a copy: the buffer is written anew by every run
            self._inputs[name] = library.OrtValue.ortvalue_from_numpy(np.array(value, order="C"), device, 0)
            self._binding.bind_ortvalue_input(name, self._inputs[name])
        self._outputs = outputs
        self._kept: list[Any] = []
        for name in outputs:
            self._binding.bind_output(name, device)

    def run(self, feed: dict[str, npt.NDArray[Any]]) -> list[Floats]:
        for name, value in feed.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(value))
        self._session.run_with_iobinding(self._binding)
        if not self._kept:
            # what the first run allocated is written anew by those that follow
            self._kept = list(self._binding.get_outputs())
            for name, value in zip(self._outputs, self._kept, strict=True):
                self._binding.bind_ortvalue_output(name, value)
        return [np.array(value, np.float32) for value in self._binding.copy_outputs_to_cpu()]


def _profile(spec: TensorSpec, at: int) -> str:
    sizes = []
    for place, axis in enumerate(spec.shape):
        if isinstance(axis, int):
            sizes.append(axis)
        else:
            sizes.append(BATCH[at] if place == 0 else (SIDES[0], 224, SIDES[1])[at])
    return "x".join(str(size) for size in sizes)
