"""Writes the two halves as ONNX graphs, one file each."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avgn.export.inputs import Axes, half_of
from avgn.export.optimize import OptimizedModel
from avgn.runtime.contract import HALVES, INPUTS, OUTPUTS
from avgn.runtime.errors import MissingExtraError

MIN_OPSET = 18
FOLD_BYTES = 1 << 28


def write_graphs(
    optimized: OptimizedModel, folder: Path, *, opset: int, facts: dict[str, str], suffix: str = ""
) -> dict[str, Path]:
    """Write audio.onnx and image.onnx with a dynamic batch; `facts` go into their metadata, `suffix` before ".onnx".

    Returns the files by half. Raises MissingExtraError without the export extra.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from None
    files = {}
    for half in HALVES:
        module, arguments, dynamic = half_of(optimized, half)
        files[half] = folder / f"{half}{suffix}.onnx"
        write_half(module, arguments, dynamic, half, files[half], opset=opset, facts=facts)
    return files


def write_half(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    dynamic: Axes,
    half: str,
    file: Path,
    *,
    opset: int,
    facts: dict[str, str],
) -> None:
    """Write one half, called with `arguments` whose axes `dynamic` may change, as a graph with `facts`."""
    import onnx
    import onnxscript.optimizer

    quiet = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=dynamic,
                input_names=list(INPUTS[half]),
                output_names=list(OUTPUTS[half]),
                verbose=False,
            )
        assert program is not None
        # by default nothing as large as weights is computed ahead
        onnxscript.optimizer.optimize(program.model, input_size_limit=FOLD_BYTES, output_size_limit=FOLD_BYTES)
        program.save(str(file), external_data=False)
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    graph = onnx.load(file)
    _strip(graph)
    _name_weights(graph, module)
    onnx.helper.set_model_props(graph, facts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, file)


def _name_weights(graph: Any, module: nn.Module) -> None:
    """Call weights what the model calls them: the exporter transposes some and numbers them."""
    import onnx

    names: dict[tuple[tuple[int, ...], bytes], str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        value = tensor.detach().cpu()
        for form in (value, value.mT) if value.dim() == 2 else (value,):
            names.setdefault((tuple(form.shape), form.contiguous().numpy().tobytes()), name.removeprefix("model."))
    new: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        name = names.get((value.shape, value.tobytes()), tensor.name.removeprefix("model."))
        # small constants may be equal by chance
        new[tensor.name] = name if value.size > 1 and name not in new.values() else tensor.name
    for tensor in graph.graph.initializer:
        tensor.name = new[tensor.name]
    for value in graph.graph.value_info:
        value.name = new.get(value.name, value.name)
    for node in graph.graph.node:
        for at, name in enumerate(node.input):
            if name in new:
                node.input[at] = new[name]


def _strip(graph: Any) -> None:
    """Take out what the exporter notes for debugging: stack traces with the paths of this machine."""
    pending = [graph, graph.graph, *graph.functions]
    while pending:
        item = pending.pop()
        item.doc_string = ""
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
        for name in ("node", "input", "output", "value_info", "initializer"):
            for part in getattr(item, name, ()):
                if not isinstance(part, str):
                    pending.append(part)
