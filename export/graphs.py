"""Writes the two halves as ONNX graphs, one file each."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avgn.export.halves import AudioHalf, ImageHalf
from avgn.model import AVGN
from avgn.runtime.errors import MissingExtraError

MIN_OPSET = 18
INPUTS = {"audio": ("waveform",), "image": ("image", "sources")}
OUTPUTS = {"audio": ("sources", "audio_prob"), "image": ("maps", "visual_prob")}


def write_graphs(model: AVGN, folder: Path, *, opset: int, facts: dict[str, str]) -> dict[str, Path]:
    """Write audio.onnx and image.onnx with a dynamic batch; `facts` go into their metadata.

    Returns the files by half. Raises MissingExtraError without the export extra.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from None
    config = model.config
    height, width = config.image_size
    batch = torch.export.Dim("batch", min=1, max=4096)
    rows = torch.export.Dim("rows", min=1, max=64)
    columns = torch.export.Dim("columns", min=1, max=64)
    waveform = torch.zeros(2, config.window_samples)
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    sources = torch.zeros(2, config.num_maps, config.dim)
    halves: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]] = {
        "audio": (AudioHalf(model), (waveform,), ({0: batch},)),
        "image": (
            ImageHalf(model),
            (image, sources),
            ({0: batch, 1: 32 * rows, 2: 32 * columns}, {0: batch}),
        ),
    }
    files = {}
    for half, (module, arguments, dynamic) in halves.items():
        files[half] = folder / f"{half}.onnx"
        _write(module.eval(), arguments, dynamic, half, files[half], opset=opset, facts=facts)
    return files


def _write(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    dynamic: tuple[dict[int, Any], ...],
    half: str,
    file: Path,
    *,
    opset: int,
    facts: dict[str, str],
) -> None:
    import onnx

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
        program.save(str(file), external_data=False)
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    graph = onnx.load(file)
    _strip(graph)
    onnx.helper.set_model_props(graph, facts)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, file)


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
