"""Engines run the two graphs of a bundle. One file each; adding one is a new file and one line in ENGINES."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import PRECISIONS
from avgn.runtime.engines.base import Engine
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.engines.trust import native_obstacle
from avgn.runtime.errors import InputError, MissingExtraError

__all__ = ["ENGINES", "Engine", "EngineEntry", "choose_engine", "load_engine", "obstacle_of"]

log = logging.getLogger("avgn.runtime")

# of TensorRT
RELEASES = (10, 11)


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """Where an engine lives and which variants (by their `engine` field) it can run.

    `factory` is "module:callable" for `callable(bundle, variant, **options) -> Engine`; `requires` is the module
    whose presence makes the engine usable and `extra` the extra that installs it. `gpu` engines need an NVIDIA GPU,
    `provider` is what onnxruntime must have been built with, `library` a shared library that it loads. Engines that are
    not `automatic` are used when asked for; `automatic_for` limits that to variants whose target begins so.
    """

    factory: str
    requires: str
    extra: str
    reads: tuple[str, ...]
    gpu: bool = False
    provider: str | None = None
    library: str | None = None
    automatic: bool = True
    automatic_for: str = ""

    def missing(self) -> bool:
        """True when the engine's library is not installed."""
        try:
            return importlib.util.find_spec(self.requires) is None
        except (ImportError, ValueError):
            return True

    def obstacle(self, target: str = "any") -> str | None:
        """Return why the engine can't run variants for `target` on this machine, or None."""
        if self.missing():
            return f"{self.requires} is not installed: pip install 'avgn[{self.extra}]'"
        if self.gpu or target.startswith("sm_"):
            if isinstance(gpu := find_gpu(), str):
                return gpu
            if target.startswith("sm_") and target != gpu.target:
                return f"built for {target}, this GPU ({gpu.name}) is {gpu.target}"
        if self.provider is not None:
            import onnxruntime

            if self.provider not in onnxruntime.get_available_providers():
                return f"this onnxruntime has no {self.provider}: pip install 'avgn[gpu]' in place of avgn[cpu]"
        if self.library is not None and not _loads(self.library):
            return f"lib{self.library} is not installed: pip install 'avgn[{self.extra}]'"
        return None


# in the order in which backend="auto" tries them
ENGINES: dict[str, EngineEntry] = {
    "tensorrt": EngineEntry(
        factory="avgn.runtime.engines.tensorrt_engine:TensorRtEngine",
        requires="tensorrt",
        extra="gpu",
        reads=("tensorrt",),
        gpu=True,
    ),
    "tensorrt-rtx": EngineEntry(
        factory="avgn.runtime.engines.tensorrt_engine:TensorRtRtxEngine",
        requires="tensorrt_rtx",
        extra="rtx",
        reads=("tensorrt-rtx",),
        gpu=True,
    ),
    # its packages for a CPU were slower than the graphs (docs/performance.md)
    "aoti": EngineEntry(
        factory="avgn.runtime.engines.aoti_engine:AotiEngine",
        requires="torch",
        extra="train",
        reads=("aoti",),
        automatic_for="sm_",
    ),
    "onnxruntime-cuda": EngineEntry(
        factory="avgn.runtime.engines.onnxruntime_gpu:CudaEngine",
        requires="onnxruntime",
        extra="gpu",
        reads=("onnxruntime",),
        gpu=True,
        provider="CUDAExecutionProvider",
    ),
    # it builds engines at the first load, for minutes
    "onnxruntime-tensorrt": EngineEntry(
        factory="avgn.runtime.engines.onnxruntime_gpu:TensorRtProviderEngine",
        requires="onnxruntime",
        extra="gpu",
        reads=("onnxruntime",),
        gpu=True,
        provider="TensorrtExecutionProvider",
        library="nvinfer",
        automatic=False,
    ),
    # faster than onnxruntime (docs/performance.md)
    "openvino": EngineEntry(
        factory="avgn.runtime.engines.openvino_engine:OpenVinoEngine",
        requires="openvino",
        extra="openvino",
        reads=("onnxruntime",),
    ),
    "onnxruntime": EngineEntry(
        factory="avgn.runtime.engines.onnxruntime_engine:OnnxRuntimeEngine",
        requires="onnxruntime",
        extra="cpu",
        reads=("onnxruntime",),
    ),
}


def choose_engine(bundle: Bundle, backend: str = "auto", precision: str | None = None, **options: Any) -> Engine:
    """Load a bundle's graphs into an engine, and say in one log line which and why.

    Options go to the engine (`threads=` for those that compute on the CPU). Raises InputError for an unknown backend,
    one that can't run on this machine or a precision that the bundle does not hold, MissingExtraError when the
    engine's library is not installed, FailureError for an engine that differs from its ONNX graphs.
    """
    if backend != "auto" and backend not in ENGINES:
        raise InputError(f"backend {backend!r} is not known: choose auto or one of {', '.join(ENGINES)}")
    names = [name for name, entry in ENGINES.items() if entry.automatic] if backend == "auto" else [backend]
    fitting = [
        (name, variant)
        for name in names
        for variant in _fitting(bundle, ENGINES[name], precision)
        if backend != "auto" or variant.target.startswith(ENGINES[name].automatic_for)
    ]
    if not fitting:
        held = ", ".join(sorted({f"{v.precision} for {v.engine}" for v in bundle.info.variants}))
        wanted = f"{precision or 'any precision'} for {backend}"
        raise InputError(f"bundle {bundle.path} holds no variant with {wanted}: choose one of these: {held}")
    obstacles: dict[str, str] = {}
    usable: list[tuple[str, Variant]] = []
    for name, variant in fitting:
        if (obstacle := obstacle_of(name, bundle, variant)) is None:
            usable.append((name, variant))
        else:
            obstacles.setdefault(name, obstacle)
    if not usable:
        if backend != "auto" and not ENGINES[backend].missing():
            raise InputError(f"backend {backend} can't be used: {obstacles[backend]}")
        # what anybody can install comes last in line
        entry = ENGINES[next((name for name in reversed(obstacles) if not ENGINES[name].gpu), next(iter(obstacles)))]
        raise MissingExtraError(entry.requires, entry.extra)
    check_installation()
    name, variant = usable[0]
    engine = load_engine(bundle, variant, name, **options)
    if variant.verified is None and variant.engine != "onnxruntime":
        check_unverified(bundle, variant, engine)
    why = "asked for" if backend != "auto" else "the first that can run here"
    passed = "".join(f"; {each}: {obstacle}" for each, obstacle in obstacles.items() if each not in dict(usable))
    log.info("engine %s with %s graphs of %s (%s%s)", engine.name, variant.precision, bundle.path, why, passed)
    return engine


def obstacle_of(name: str, bundle: Bundle, variant: Variant) -> str | None:
    """Return why the engine `name` can't or may not run a variant on this machine, or None."""
    return ENGINES[name].obstacle(variant.target) or native_obstacle(bundle, variant)


def check_unverified(bundle: Bundle, variant: Variant, engine: Engine) -> None:
    """Compare an engine that could not run where it was exported with its ONNX graphs, on the CPU.

    Raises FailureError when they differ, InputError for a bundle without those graphs.
    """
    from avgn.runtime.engines import first_load

    parent = load_engine(bundle, first_load.parent_of(bundle, variant), "onnxruntime")
    measured = first_load.check_first_load(bundle, variant, engine, parent)
    if measured is not None:
        log.info("engine %s agrees with its ONNX graphs here: %s", engine.name, measured)


def load_engine(bundle: Bundle, variant: Variant, name: str, **options: Any) -> Engine:
    """Load one variant into the engine `name`. Raises MissingExtraError when its library is not installed."""
    module, _, attribute = ENGINES[name].factory.partition(":")
    factory: Callable[..., Engine] = getattr(importlib.import_module(module), attribute)
    return factory(bundle, variant, **options)


def _loads(name: str) -> bool:
    """Return whether a shared library is there: among the system's, or as pip installs TensorRT's."""
    if ctypes.util.find_library(name) is not None or importlib.util.find_spec("tensorrt_libs") is not None:
        return True
    for release in RELEASES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(f"lib{name}.so.{release}") is not None
    return False


def check_installation() -> None:
    """Raise InputError when two packages that hide each other are installed."""
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(found) > 1:
        raise InputError(f"{' and '.join(found)} are both installed and hide each other: pip uninstall one")


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _fitting(bundle: Bundle, entry: EngineEntry, precision: str | None) -> list[Variant]:
    order = {name: rank for rank, name in enumerate(PRECISIONS)}
    variants = [v for v in bundle.info.variants if v.engine in entry.reads and precision in (None, v.precision)]
    return sorted(variants, key=lambda v: order.get(v.precision, len(order)))
