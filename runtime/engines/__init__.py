"""Engines run the two graphs of a bundle. One file each; adding one is a new file and one line in ENGINES."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError, MissingExtraError

__all__ = ["ENGINES", "Engine", "EngineEntry", "choose_engine", "load_engine"]

log = logging.getLogger("avgn.runtime")

PRECISIONS = ("fp32", "fp16", "int8-cpu", "int8-gpu")


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """Where an engine lives and which variants (by their `engine` field) it can run.

    `factory` is "module:callable" for `callable(bundle, variant, **options) -> Engine`; `requires` is the module
    whose presence makes the engine usable and `extra` the extra that installs it.
    """

    factory: str
    requires: str
    extra: str
    reads: tuple[str, ...]

    def missing(self) -> bool:
        """True when the engine's library is not installed."""
        try:
            return importlib.util.find_spec(self.requires) is None
        except (ImportError, ValueError):
            return True


# in the order in which backend="auto" tries them
ENGINES: dict[str, EngineEntry] = {
    "onnxruntime": EngineEntry(
        factory="avgn.runtime.engines.onnxruntime_engine:OnnxRuntimeEngine",
        requires="onnxruntime",
        extra="cpu",
        reads=("onnxruntime",),
    ),
    "openvino": EngineEntry(
        factory="avgn.runtime.engines.openvino_engine:OpenVinoEngine",
        requires="openvino",
        extra="openvino",
        reads=("onnxruntime",),
    ),
}


def choose_engine(bundle: Bundle, backend: str = "auto", precision: str | None = None, **options: Any) -> Engine:
    """Load a bundle's graphs into an engine, and say in one log line which and why.

    Options go to the engine (`threads=` for onnxruntime). Raises InputError for an unknown backend or a precision
    that the bundle does not hold, MissingExtraError when the engine's library is not installed.
    """
    if backend != "auto" and backend not in ENGINES:
        raise InputError(f"backend {backend!r} is not known: choose auto or one of {', '.join(ENGINES)}")
    names = list(ENGINES) if backend == "auto" else [backend]
    fitting = [(name, variant) for name in names for variant in _fitting(bundle, ENGINES[name], precision)]
    if not fitting:
        held = ", ".join(sorted({f"{v.precision} for {v.engine}" for v in bundle.info.variants}))
        wanted = f"{precision or 'any precision'} for {backend}"
        raise InputError(f"bundle {bundle.path} holds no variant with {wanted}: choose one of these: {held}")
    installed = [(name, variant) for name, variant in fitting if not ENGINES[name].missing()]
    if not installed:
        entry = ENGINES[fitting[0][0]]
        raise MissingExtraError(entry.requires, entry.extra)
    check_installation()
    name, variant = installed[0]
    engine = load_engine(bundle, variant, name, **options)
    why = "asked for" if backend != "auto" else f"first installed of {', '.join(dict.fromkeys(n for n, _ in fitting))}"
    log.info("engine %s with %s graphs of %s (%s)", engine.name, variant.precision, bundle.path, why)
    return engine


def load_engine(bundle: Bundle, variant: Variant, name: str, **options: Any) -> Engine:
    """Load one variant into the engine `name`. Raises MissingExtraError when its library is not installed."""
    module, _, attribute = ENGINES[name].factory.partition(":")
    factory: Callable[..., Engine] = getattr(importlib.import_module(module), attribute)
    return factory(bundle, variant, **options)


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
