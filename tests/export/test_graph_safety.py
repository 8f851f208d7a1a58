"""The halves can be recorded as CUDA graphs, and the checks refuse what can't be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from avgn.config import preset
from avgn.export.graph_safety import fix_sizes, graph_hazards, known_shapes, trace
from avgn.export.halves import AudioHalf, ImageHalf
from avgn.export.mixed import to_mixed
from avgn.export.optimize import FrontEnd, OptimizedModel, optimize
from avgn.model import build_model
from avgn.runtime import Bundle, InputError
from avgn.systems import SYSTEMS
from tests.baselines.scenes import small
from tests.export.models import small_model

KERNELS = {"reference": "aten.bmm.default", "": "avgn.grouping_attention.default"}


def hazards_of(optimized: OptimizedModel) -> dict[str, tuple[str, ...]]:
    config = optimized.model.config
    image = torch.zeros(1, *config.image_size, 3, dtype=torch.uint8)
    sources = torch.zeros(1, config.num_maps, config.source_dim)
    halves: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "image": (ImageHalf(optimized), (image, sources)),
        "audio": (AudioHalf(optimized), (torch.zeros(1, config.window_samples),)),
    }
    return {half: trace(module.eval(), arguments).hazards for half, (module, arguments) in halves.items()}


@pytest.mark.parametrize("kernels", KERNELS, ids=["reference", "triton"])
@pytest.mark.parametrize("name", ["avgn-tiny", "avgn-resnet18"])
def test_the_image_half_of_a_preset_never_waits_for_the_host(
    name: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVGN_KERNELS", kernels)
    optimized = optimize(build_model(preset(name)).eval())
    config = optimized.model.config
    image = torch.zeros(1, *config.image_size, 3, dtype=torch.uint8)
    found = trace(ImageHalf(optimized), (image, torch.zeros(1, config.num_maps, config.source_dim)))
    assert found.hazards == ()
    # what was traced is the whole half, with the kernels that a GPU would run
    assert found.operators["aten.convolution.default"] == 21
    assert found.operators[KERNELS[kernels]] >= 1


@pytest.mark.parametrize("half", ["optimized", "mixed"])
@pytest.mark.parametrize(
    "options", [{}, {"assignment": "hard"}, {"system": "avgn-released", "visual_gate": "none"}], ids=str
)
@pytest.mark.parametrize("front_end", ["folded", "framed"])
def test_nor_does_any_form_of_it(front_end: FrontEnd, half: str, options: dict[str, Any]) -> None:
    optimized = optimize(small_model(**options), front_end=front_end)
    assert hazards_of(to_mixed(optimized) if half == "mixed" else optimized) == {"image": (), "audio": ()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_nor_any_other_system(system: str) -> None:
    assert hazards_of(optimize(build_model(small(system)).eval())) == {"image": (), "audio": ()}


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.max().item()


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Selects(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Leaves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cpu() * 2


class Brings(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(3.0).to(x.device)


class Forgets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Reads(), "_local_scalar_dense.default: the host reads its value"),
        (Branches(), "the host reads its value"),
        (Selects(), "its shape depends on data"),
        (Leaves(), "copies between cpu and cuda"),
        (Brings(), "copies between cpu and cuda"),
        (Forgets(), "neither an argument nor a buffer"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_module_that_waits_is_refused(module: nn.Module, message: str) -> None:
    assert any(message in hazard for hazard in trace(module, (torch.zeros(2, 3),)).hazards)
    # buffers travel with the module, numbers with the launch
    assert trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval()), (torch.zeros(2, 3),)).hazards == ()


# the ONNX graphs


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_the_shipped_graphs_have_fixed_shapes_once_sizes_are_fixed(size: tuple[int, int]) -> None:
    bundle = Bundle.load("tiny")
    rng = np.random.default_rng(0)
    feeds: dict[str, dict[str, Any]] = {
        "image": {
            "image": rng.integers(0, 256, (1, *size, 3), dtype=np.uint8),
            "sources": rng.standard_normal((1, len(bundle.classes), 128)).astype(np.float32),
        },
        "audio": {"waveform": rng.standard_normal((1, bundle.info.window_samples)).astype(np.float32)},
    }
    for half, feed in feeds.items():
        graph = onnx.load(bundle.graph(bundle.variants[0], half))
        sizes = {name: value.shape for name, value in feed.items()}
        assert graph_hazards(graph, sizes) == ()
        # the folded graph, of which this was said, is the same function
        fixed = fix_sizes(graph, sizes)
        values = [
            onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
            for each in (graph, fixed)
        ]
        shapes = known_shapes(fixed)
        for output, one, other in zip(graph.graph.output, *values, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
            assert shapes[output.name] == one.shape


def graph_of(*nodes: Any, shape: tuple[Any, ...] = ("batch", 6)) -> Any:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    sizes = [helper.make_tensor("two", TensorProto.INT64, [1], [2])]
    graph = helper.make_graph(list(nodes), "g", [given], [made], sizes)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_graph_whose_shapes_depend_on_data_is_refused() -> None:
    sizes = {"x": (3, 6)}
    rows = graph_of(
        helper.make_node("NonZero", ["x"], ["at"], name="rows"),
        helper.make_node("Cast", ["at"], ["y"], to=TensorProto.FLOAT),
    )
    assert graph_hazards(rows, sizes) == ("NonZero rows: its shape or its work depends on data",)
    # as many columns as the first value says
    tiles = graph_of(
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one"], ["counts"]),
        helper.make_node("Concat", ["counts", "one"], ["repeats"], axis=0),
        helper.make_node("Tile", ["x", "repeats"], ["y"], name="tiles"),
    )
    tiles.graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    found = graph_hazards(tiles, sizes)
    assert any("Tile tiles: its shape comes from repeats" in hazard for hazard in found)
    assert any(hazard.startswith("y: its shape is not known") for hazard in found)


def test_arithmetic_on_sizes_alone_is_no_hazard() -> None:
    graph = graph_of(
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Mul", ["shape", "two"], ["twice"]),
        helper.make_node("Expand", ["x", "shape"], ["y"]),
    )
    assert graph_hazards(graph, {"x": (3, 6)}) == ()
    with pytest.raises(InputError, match="'x' has 2 axes"):
        graph_hazards(graph, {"x": (3,)})
    with pytest.raises(InputError, match="'x' has no size"):
        graph_hazards(graph, {})
