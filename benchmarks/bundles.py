"""Bundles of random weights for timing: as an export makes them, without its searches and its checks.

Times don't depend on the weights. Batch norms hold the statistics of rendered scenes, so that activations have the
sizes that training gives them.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from avgn.config import preset
from avgn.engine import TorchEngine, describe
from avgn.export import quantize
from avgn.export.cost import multiply_adds
from avgn.export.graphs import MIN_OPSET, write_graphs
from avgn.export.optimize import optimize
from avgn.export.sensitivity import FLOAT_SHARE
from avgn.export.variants import describe_variant
from avgn.export.verify import render_batch
from avgn.model import LocalizerModel, build_model
from avgn.runtime.bundle import Bundle, write_bundle_info

NUM_SCENES = 4


def random_model(name: str, classes: int, **overrides: Any) -> LocalizerModel:
    """Return a preset with random weights, in evaluation mode."""
    torch.manual_seed(0)
    names = tuple(f"class_{index:03d}" for index in range(classes))
    model = build_model(preset(name, classes=names, **overrides))
    scenes = render_batch(describe(model), 2 * NUM_SCENES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # the mean over the scenes, not a moving one
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.from_numpy(scenes.waveform), torch.from_numpy(scenes.image))
    return model.eval()


def quick_bundle(model: LocalizerModel, folder: Path, *, int8: bool = True) -> Bundle:
    """Return an fp32 and an int8-cpu variant of a model; a bundle that is there already is taken as it is.

    The search for layers that 8 bits hurt takes minutes. Here the first ones stay float, which the search mostly
    chooses, up to the share of the multiply-adds that it may choose.
    """
    if (folder / "bundle.json").is_file():
        return Bundle.load(folder)
    folder.mkdir(parents=True, exist_ok=True)
    info = describe(model)
    files = {"fp32": write_graphs(optimize(model), folder, opset=MIN_OPSET, facts={})}
    if int8:
        scenes = render_batch(info, NUM_SCENES)
        heard = TorchEngine(model).run_audio(scenes.waveform)["sources"]
        feeds: dict[str, quantize.Feed] = {
            "audio": {"waveform": scenes.waveform},
            "image": {"image": scenes.image, "sources": heard},
        }
        files["int8-cpu"] = {half: folder / f"{half}.int8-cpu.onnx" for half in feeds}
        for half, feed in feeds.items():
            source = files["fp32"][half]
            ranges = quantize.calibrate(source, [feed], "percentile")
            quantize.quantize(source, files["int8-cpu"][half], "int8-cpu", ranges, _first_layers(source, feed))
    variants = tuple(
        describe_variant(info, model.config.source_dim, found, precision=precision)
        for precision, found in files.items()
    )
    write_bundle_info(folder, replace(info, variants=variants))
    return Bundle.load(folder)


def bundle_folder(cache: Path | None) -> Path:
    """Return where bundles are kept: `cache`, or a folder that nobody looks into again."""
    return cache or Path(tempfile.mkdtemp(prefix="avgn-benchmark-"))


def _first_layers(source: Path, feed: quantize.Feed) -> list[str]:
    graph = onnx.load(source)
    found = quantize.layers(graph)
    costs = multiply_adds(graph, {name: value[:1] for name, value in feed.items()})
    room = FLOAT_SHARE * sum(costs[layer.node] for layer in found if layer.kind != "front-end")
    room -= sum(costs[layer.node] for layer in found if layer.kind == "product")
    kept = []
    for layer in found:
        if layer.kind == "layer":
            room -= costs[layer.node]
            if room < 0:
                break
            kept.append(layer.node)
    return kept
