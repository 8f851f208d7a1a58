"""Builds TensorRT engines from ONNX graphs, with tensorrt (10.x, 11.x) and tensorrt-rtx alike.

Networks are strongly typed: the precision is in the graph, no builder flag changes it, and TF32 is off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avgn.runtime.contract import TensorSpec
from avgn.runtime.engines.tensorrt_engine import DTYPES, import_library
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.files import cache_folder, write_whole

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The range of shapes that an engine takes, as (least, usual, most): batch, height and width."""

    batch: tuple[int, int, int] = (1, 1, 16)
    height: tuple[int, int, int]
    width: tuple[int, int, int]

    def shapes(self, spec: TensorSpec) -> tuple[tuple[int, ...], ...]:
        """Return the least, usual and most shape of an input."""
        axes = {"batch": self.batch, "height": self.height, "width": self.width}
        rows = [axes[axis] if isinstance(axis, str) else (axis, axis, axis) for axis in spec.shape]
        return tuple(tuple(row[at] for row in rows) for at in range(3))


def load_library(name: str) -> Any:
    """Return the module of "tensorrt" or "tensorrt-rtx".

    Raises InputError where tensorrt has no GPU to build for, MissingExtraError where the library is not installed.
    """
    if name == "tensorrt":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "format tensorrt builds an engine on the GPU that it is for and this machine has none: use "
                "--format tensorrt-rtx, which builds without a GPU, or export on the target machine"
            )
    return import_library(name)


def capability(library: Any, text: str) -> Any:
    """Return the library's constant for a compute capability such as "8.9". Raises InputError for one it can't build
    for."""
    known = {
        f"{name[2:-1]}.{name[-1]}": getattr(library.ComputeCapability, name)
        for name in dir(library.ComputeCapability)
        if name.startswith("SM") and name[2:].isdigit()
    }
    if text not in known:
        listed = ", ".join(sorted(known, key=float))
        raise InputError(f"compute capability {text!r} can't be built for: choose from {listed}")
    return known[text]


def build(
    name: str,
    graph: Path,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    profile: Profile,
    compute_capability: str | None = None,
    report: Report = lambda message: None,
) -> bytes:
    """Return the serialized engine of a graph, from the cache where the same one was built before.

    `compute_capability`: for tensorrt-rtx; None means this machine's GPU. Raises FailureError with the node's name
    when the library can't parse or build the graph.
    """
    library = load_library(name)
    cached = _cache_file(name, library, graph, profile, compute_capability)
    if cached.is_file():
        report(f"{graph.name} for {name}: from the cache")
        return cached.read_bytes()
    logger = _logger(library)
    builder = library.Builder(logger)
    # the network reads the parser's memory
    network, _parser = parse(library, builder, logger, graph)
    check_network(library, network, inputs, outputs, str(graph))
    config = configure(library, builder, network, inputs, profile, compute_capability)
    built = builder.build_serialized_network(network, config)
    if built is None:
        said = logger.errors[-1] if logger.errors else "no reason was given"
        raise FailureError(f"{name} can't build {graph.name} for {compute_capability or 'this GPU'}: {said[:300]}")
    data = bytes(built)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cached, data)
    except (OSError, InputError):
        report(f"engine cache {cached.parent} can't be written: the engine will be built again next time")
    return data


def parse(library: Any, builder: Any, logger: Any, graph: Path) -> tuple[Any, Any]:
    """Return the strongly typed network of a graph, and its parser. Raises FailureError that names the node it stops
    at."""
    flags = 0
    # from TensorRT 11 on every network is strongly typed
    if hasattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = library.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        error = parser.get_error(0)
        raise FailureError(
            f"{library.__name__} can't read {graph.name} at node {error.node_name() or '?'} "
            f"({error.node_operator() or '?'}): {error.desc()[:200]}"
        )
    return network, parser


def check_network(
    library: Any, network: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str
) -> None:
    """Raise FailureError unless a parsed network has the names, dtypes and shapes of the contract."""
    sides = {
        "input": ([network.get_input(at) for at in range(network.num_inputs)], inputs),
        "output": ([network.get_output(at) for at in range(network.num_outputs)], outputs),
    }
    for side, (found, specs) in sides.items():
        named = {tensor.name: tensor for tensor in found}
        if set(named) != {spec.name for spec in specs}:
            raise FailureError(f"{where}: {library.__name__} finds the {side}s {sorted(named)}: export the graph again")
        for spec in specs:
            tensor = named[spec.name]
            dtype = DTYPES.get(tensor.dtype.name, tensor.dtype.name)
            shape = tuple(tensor.shape)
            fits = len(shape) == len(spec.shape) and all(
                axis == (-1 if isinstance(wanted, str) else wanted)
                for axis, wanted in zip(shape, spec.shape, strict=True)
            )
            if dtype != spec.dtype or not fits:
                raise FailureError(
                    f"{where}: {library.__name__} reads {side} {spec.name} as {dtype} {list(shape)}, expected is "
                    f"{spec.dtype} {list(spec.shape)}: export the graph again"
                )


def configure(
    library: Any,
    builder: Any,
    network: Any,
    inputs: Sequence[TensorSpec],
    profile: Profile,
    capability_text: str | None,
) -> Any:
    """Return a builder configuration with one profile, without TF32, for one compute capability (None: this GPU)."""
    config = builder.create_builder_config()
    if hasattr(library.BuilderFlag, "TF32"):
        config.clear_flag(library.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    for spec in inputs:
        shapes.set_shape(spec.name, *profile.shapes(spec))
    if config.add_optimization_profile(shapes) < 0:
        raise FailureError(f"{library.__name__} refuses the profile {profile}: choose other sizes")
    if capability_text is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability(library, capability_text), 0)
    return config


def _logger(library: Any) -> Any:
    class Logger(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.ERROR:
                self.errors.append(" ".join(message.split()))

    return Logger()


def _cache_file(name: str, library: Any, graph: Path, profile: Profile, compute_capability: str | None) -> Path:
    target = compute_capability or _this_gpu()
    key = hashlib.sha256(graph.read_bytes())
    key.update(repr((name, library.__version__, target, profile)).encode())
    return cache_folder() / "engines" / f"{key.hexdigest()}.engine"


def _this_gpu() -> str:
    import torch

    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name} {properties.major}.{properties.minor}"
