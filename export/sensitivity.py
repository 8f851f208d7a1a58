"""Which layers of a graph bear 8 bits: each is quantised alone, and what cost the most stays float.

Legend: a layer's damage is the relative error of the graph's outputs when nothing but that layer is in 8 bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from avgn.export.cost import multiply_adds
from avgn.export.quantize import LAYERS, RANGES, Feed, layers, quantize

# what may stay float: products of activations and the layers that 8 bits hurt most (the front-end aside, and layers
# that lie between them)
FLOAT_SHARE = 0.10
# a layer that makes less than this of the squared damage is quantised, whatever room is left
LEAST_PART = 0.01


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """A layer, its multiply-adds for one sample, its damage (None where it was not tried) and what became of it."""

    name: str
    kind: str
    multiply_adds: int
    damage: float | None
    quantized: bool


def examine(
    file: Path, flavour: str, ranges: Any, feeds: Sequence[Feed], share: float = FLOAT_SHARE
) -> list[LayerReport]:
    """Try every layer alone in 8 bits on `feeds` and decide which stay float.

    Those that lose the most hold at most `share` of the multiply-adds; layers that lie between them come on top.
    """
    graph = onnx.load(file)
    found = layers(graph)
    costs = multiply_adds(graph, {name: value[:1] for name, value in feeds[0].items()})
    candidates = [layer for layer in found if layer.kind == "layer"]
    truth = run(file, feeds)
    damage: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone.onnx"
        for layer in candidates:
            others = [other.node for other in candidates if other.node != layer.node]
            quantize(file, alone, flavour, ranges, others)
            damage[layer.node] = distance(run(alone, feeds), truth)
    total = sum(costs[layer.node] for layer in found if layer.kind != "front-end")
    room = share * total - sum(costs[layer.node] for layer in found if layer.kind == "product")
    whole = sum(value**2 for value in damage.values())
    kept = set()
    # what spares the most damage for its multiply-adds comes first
    for layer in sorted(candidates, key=lambda layer: -(damage[layer.node] ** 2) / costs[layer.node]):
        if costs[layer.node] <= room and damage[layer.node] ** 2 >= LEAST_PART * whole:
            kept.add(layer.node)
            room -= costs[layer.node]
    kept |= between(graph, kept)
    return [
        LayerReport(
            name=layer.name,
            kind=layer.kind,
            multiply_adds=costs[layer.node],
            damage=damage.get(layer.node),
            quantized=layer.kind == "layer" and layer.node not in kept,
        )
        for layer in found
    ]


def between(graph: onnx.ModelProto, kept: Collection[str]) -> set[str]:
    """Return the layers whose input comes from layers of `kept` alone and whose output goes to such layers alone.

    There 8 bits save less than it takes to go to them and back: in the world model's first blocks a sixth of the
    whole half's time was spent on it.
    """
    makers = {name: node for node in graph.graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = set()
    for node in graph.graph.node:
        if node.op_type not in LAYERS or node.name in kept:
            continue
        before, after = _layer_before(node.input[0], makers), _layers_after(node.output[0], users)
        if before in kept and after and after <= set(kept):
            found.add(node.name)
    return found


def _layer_before(tensor: str, makers: Mapping[str, onnx.NodeProto]) -> str | None:
    """Return the node of the layer that a tensor comes from, past activations; None where it is another's."""
    node = makers.get(tensor)
    while node is not None and node.op_type in RANGES:
        node = makers.get(node.input[0])
    return node.name if node is not None and node.op_type in LAYERS else None


def _layers_after(tensor: str, users: Mapping[str, Sequence[onnx.NodeProto]]) -> set[str]:
    """Return the nodes that a tensor goes to, past activations."""
    found: set[str] = set()
    for node in users.get(tensor, ()):
        found |= _layers_after(node.output[0], users) if node.op_type in RANGES else {node.name}
    return found


def float_share(reports: Sequence[LayerReport]) -> float:
    """Return the part of the multiply-adds, the front-end's aside, that stays float."""
    counted = [report for report in reports if report.kind != "front-end"]
    return sum(r.multiply_adds for r in counted if not r.quantized) / sum(r.multiply_adds for r in counted)


def float_nodes(file: Path, reports: Sequence[LayerReport]) -> list[str]:
    """Return the nodes of the layers that stay float."""
    return [layer.node for layer, report in zip(layers(onnx.load(file)), reports, strict=True) if not report.quantized]


def run(file: Path, feeds: Sequence[Feed]) -> list[NDArray[Any]]:
    """Return the outputs of a graph in ONNX Runtime over `feeds`, each joined along the batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    parts = [session.run(None, dict(feed)) for feed in feeds]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def distance(found: Sequence[NDArray[Any]], truth: Sequence[NDArray[Any]]) -> float:
    """Return the root mean square of the relative errors of all outputs."""
    errors = [
        np.linalg.norm((one - other).astype(np.float64)) / max(float(np.linalg.norm(other)), 1e-12)
        for one, other in zip(found, truth, strict=True)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def table(reports: Mapping[str, Sequence[LayerReport]]) -> list[str]:
    """Return lines for people: the layers of each half, the most sensitive first."""
    lines = []
    for half, rows in reports.items():
        lines.append(f"{half}: {100 * float_share(rows):.1f} % of the multiply-adds stay float")
        tried = sorted((row for row in rows if row.damage is not None), key=lambda row: -(row.damage or 0.0))
        for row in tried:
            state = "8 bits" if row.quantized else "float"
            lines.append(f"  {state:7}{row.damage:9.2e}{row.multiply_adds / 1e6:9.2f} M  {row.name}")
    return lines
