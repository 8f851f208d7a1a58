"""What export promises where a mistake would cost accuracy on some inputs and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from avgn.config import preset
from avgn.export import mixed, quantize, sensitivity
from avgn.export.graph_safety import trace
from avgn.export.optimize import FrozenGrouping, OptimizedModel
from avgn.export.spectrum import FoldedSpectrogram, FramedSpectrogram
from avgn.export.variants import Maker
from avgn.frontend import Spectrogram
from avgn.grouping import Grouping
from avgn.model import IMAGENET_MEAN
from avgn.runtime.contract import INT8
from tests.export.models import small_model

# optimization


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize(("cells", "classes"), [(9, 4), (4, 4), (4, 9)], ids=["few", "as many", "many"])
def test_grouping_with_joined_projections_is_the_grouping(cells: int, classes: int, hard: bool) -> None:
    """With fewer classes than cells and with more: W_q^T W_k goes to one side or the other, transposed."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    grouping = Grouping(preset("avgn-tiny", dim=8, heads=2), hard=hard).double()
    for parameter in grouping.parameters():
        parameter.data = rand(8, 8)
    frozen = FrozenGrouping(grouping, cells, classes)
    features, tokens = rand(2, cells, 8), rand(2, classes, 8)
    with torch.no_grad():
        torch.testing.assert_close(frozen(features, tokens), grouping(features, tokens))
        # the scores themselves: an assignment that saturates hides much
        plain = grouping.query(features) @ grouping.key(tokens).transpose(1, 2)
        if frozen.few_classes:
            joined = features @ frozen.query_key(tokens).transpose(1, 2)
        else:
            joined = frozen.query_key(features) @ tokens.transpose(1, 2)
        torch.testing.assert_close(joined, plain)
    assert frozen.few_classes == (classes <= cells)


@pytest.mark.parametrize("form", [FoldedSpectrogram, FramedSpectrogram])
@pytest.mark.parametrize("hops", [2, 3, 100])
@pytest.mark.parametrize("more", [0, 1, 219])
def test_other_forms_of_the_front_end_have_as_many_frames_as_the_model(
    hops: int, more: int, form: type[FoldedSpectrogram | FramedSpectrogram]
) -> None:
    spectrogram = Spectrogram(preset("avgn-tiny"))
    sound = torch.randn(1, 220 * hops + more, generator=torch.Generator().manual_seed(0))
    found = form(spectrogram)(sound)
    assert found.shape == spectrogram(sound).shape == (1, 1, 257, hops)
    assert (found - spectrogram(sound)).abs().max() < 1e-3


# half precision


class Gives(nn.Module):
    """Gives what it is told next, in float16."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = list(values)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[self.values.pop(0), 0.5]], dtype=torch.float16)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_what_is_not_finite_stays_seen_whatever_comes_after(wrong: float, place: int) -> None:
    values = [3.0, -7.0, 2.0]
    values[place] = wrong
    model: Any = nn.Sequential(Gives(*values))
    found = mixed.largest_activations(OptimizedModel(model), lambda: [model(torch.zeros(1)) for _ in values])
    assert list(found) == ["0"]
    # the export refuses what is not at most the limit: neither a NaN nor an infinity is
    assert not found["0"] <= mixed.MAX_ACTIVATION
    assert mixed.MAX_ACTIVATION == 6e3 < np.finfo(np.float16).max / 4


def test_the_largest_activation_is_the_largest_in_value_of_all_runs_of_inputs_and_outputs() -> None:
    model: Any = nn.Sequential(Gives(3.0, -7.0, 2.0), nn.Identity(), nn.Conv1d(1, 1, 1))
    loud = torch.tensor([[100.0, -900.0]], dtype=torch.float16)

    def run() -> None:
        for _ in range(3):
            model[0](torch.zeros(1))
        model[1](loud)
        # what computes in float32 isn't watched
        model[2](torch.full((1, 1, 3), 1e9))

    assert mixed.largest_activations(OptimizedModel(model), run) == {"0": 7.0, "1": 900.0}
    assert not any(module._forward_hooks for module in model.modules())


# 8 bits


def convolution(folder: Path, *, image: bool = True) -> Path:
    """A graph that takes the mean out of pixels and has one layer."""
    weight = np.random.default_rng(0).normal(0, 0.1, (4, 3, 3, 3)).astype(np.float32)
    mean = (255 * np.array(IMAGENET_MEAN, np.float32)).reshape(1, 3, 1, 1)
    name = "image" if image else "picture"
    nodes = [
        helper.make_node("Sub", [name, "mean"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "first.weight"], ["made"], name="first", pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("b", 3, 8, 8))],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, ("b", 4, 8, 8))],
        [numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(weight, "first.weight")],
    )
    path = folder / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_constants_in_nodes_of_their_own_are_no_obstacle(tmp_path: Path) -> None:
    graph = onnx.load(convolution(tmp_path))
    held = numpy_helper.from_array(np.full((1, 1, 1, 1), 0.5, np.float32), "half")
    graph.graph.node.insert(0, helper.make_node("Constant", [], ["half"], value=held))
    graph.graph.node.append(helper.make_node("Add", ["made", "half"], ["moved"]))
    graph.graph.output[0].name = "moved"
    file, out = tmp_path / "constant.onnx", tmp_path / "out.onnx"
    onnx.save(graph, file)
    feeds = [{"image": np.random.default_rng(2).uniform(0, 255, (1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    quantize.quantize(file, out, "int8-cpu", quantize.calibrate(file, feeds, "percentile"))
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (file, out)]
    exact, found = (session.run(None, feeds[0])[0] for session in sessions)
    assert np.abs(found - exact).max() <= 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("flavour", INT8)
def test_pixels_keep_their_whole_range_whatever_calibration_saw(flavour: str, tmp_path: Path) -> None:
    """Calibrated on grey pictures alone, black and white ones must not be cut."""
    file, out = convolution(tmp_path), tmp_path / "out.onnx"
    rng = np.random.default_rng(1)
    grey = [{"image": rng.uniform(120, 130, (1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    ranges = quantize.calibrate(file, grey, "percentile")
    quantize.quantize(file, out, flavour, ranges)
    made = onnx.load(out)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    first = next(n for n in made.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "pixels")
    scale, zero = float(held[first.input[1]]), int(held[first.input[2]])
    kind = np.iinfo(held[first.input[2]].dtype)
    low, high = scale * (kind.min - zero), scale * (kind.max - zero)
    assert low <= -255 * 0.485 + scale and high >= 255 * (1 - 0.406) - scale
    # nor is it much wider: 8 bits are few
    assert high - low <= 1.02 * (255 * (1 + 0.485 - 0.406) if flavour == "int8-cpu" else 2 * 255 * (1 - 0.406))
    if flavour == "int8-cpu":
        # its outputs have the range that calibration saw
        return
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (file, out)]
    for value in (0.0, 255.0):
        feed = {"image": np.full((1, 3, 8, 8), value, np.float32)}
        exact, found = (session.run(None, feed)[0] for session in sessions)
        assert np.abs(found - exact).max() <= 0.03 * np.abs(exact).max()


def test_only_a_picture_has_the_range_of_pixels(tmp_path: Path) -> None:
    file, out = convolution(tmp_path, image=False), tmp_path / "out.onnx"
    feeds = [{"picture": np.full((1, 3, 8, 8), value, np.float32)} for value in (120, 130)]
    quantize.quantize(file, out, "int8-cpu", quantize.calibrate(file, feeds, "percentile"))
    made = onnx.load(out)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    first = next(n for n in made.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "pixels")
    assert 255 * float(held[first.input[1]]) < 60


@pytest.mark.parametrize("better", quantize.METHODS)
def test_the_calibration_with_the_smaller_error_is_taken(
    better: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph kept is the one that is nearer to the float graph, and what is said of it is its own error."""
    file = convolution(tmp_path)
    rng = np.random.default_rng(2)
    feeds = [{"image": rng.uniform(0, 255, (2, 3, 8, 8)).astype(np.float32)} for _ in range(2)]
    real = quantize.quantize

    def spoil(source: Path, out: Path, *rest: Any) -> None:
        real(source, out, *rest)
        if out.name.endswith(".onnx") and quantize.METHODS[1 - quantize.METHODS.index(better)] in out.name:
            graph = onnx.load(out)
            weight = next(t for t in graph.graph.initializer if t.dims == [4, 3, 3, 3])
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) // 2, weight.name))
            onnx.save(graph, out)

    monkeypatch.setattr(quantize, "quantize", spoil)
    said: list[str] = []
    maker = Maker(model=small_model(), folder=tmp_path, opset=18, facts={}, report=said.append)
    metrics = maker._quantize_half("int8-cpu", "image", file, feeds, tmp_path / "kept.onnx", tmp_path)
    kept = sensitivity.distance(sensitivity.run(tmp_path / "kept.onnx", feeds), sensitivity.run(file, feeds))
    assert metrics["image_relative_error"] == pytest.approx(kept) and kept < 0.1
    assert metrics["image_calibration_percentile"] == float(better == "percentile")
    assert any(f"{better} chosen with a relative error of {kept:.3g}" in line for line in said)


def two_layers(folder: Path, out: int = 200) -> Path:
    """A cheap layer with a wide range of weights, which 8 bits hurt, before a dear one."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, (12, 8)).astype(np.float32), rng.normal(0, 0.1, (8, out)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["between"], name="cheap"),
        helper.make_node("MatMul", ["between", "b.weight"], ["y"], name="dear"),
    ]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("b", size)) for name, size in (("x", 12), ("y", out))
    ]
    weights = [numpy_helper.from_array(first, "a.weight"), numpy_helper.from_array(second, "b.weight")]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], weights)
    path = folder / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_layers_that_are_to_stay_float_do(tmp_path: Path) -> None:
    file = two_layers(tmp_path)
    feeds = [{"x": np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)} for seed in range(4)]
    ranges = quantize.calibrate(file, feeds, "percentile")
    for kept in ([], ["cheap"], ["dear"], ["cheap", "dear"]):
        quantize.quantize(file, tmp_path / "out.onnx", "int8-gpu", ranges, kept)
        held = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}
        whole = {name for name, kind in held.items() if name in ("a.weight", "b.weight") and kind == TensorProto.FLOAT}
        assert whole == {{"cheap": "a.weight", "dear": "b.weight"}[name] for name in kept}


def test_what_spares_the_most_damage_for_its_cost_stays_float_while_there_is_room(tmp_path: Path) -> None:
    file = two_layers(tmp_path)
    feeds = [{"x": np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)} for seed in range(4)]
    ranges = quantize.calibrate(file, feeds, "percentile")
    costs = {"a": 12 * 8, "b": 8 * 200}
    for share, kept in ((0.05, set()), (0.06, {"a"}), (0.5, {"a"}), (1.0, {"a", "b"})):
        found = sensitivity.examine(file, "int8-gpu", ranges, feeds, share)
        assert {report.name: report.multiply_adds for report in found} == costs
        assert {report.name for report in found if not report.quantized} == kept
        assert all(report.damage is not None and report.damage > 1e-4 for report in found)
        assert sensitivity.float_share(found) <= share
        nodes = {"a": "cheap", "b": "dear"}
        assert sensitivity.float_nodes(file, found) == [nodes[report.name] for report in found if report.name in kept]


def test_room_is_what_products_leave_and_goes_to_what_spares_most_for_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load(two_layers(tmp_path))
    turn = helper.make_node("Transpose", ["y"], ["turned"], name="turn", perm=[1, 0])
    graph.graph.node.extend([turn, helper.make_node("MatMul", ["y", "turned"], ["z"], name="product")])
    graph.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ("b", "b")))
    file = tmp_path / "three.onnx"
    onnx.save(graph, file)
    feeds = [{"x": np.random.default_rng(0).normal(size=(1, 12)).astype(np.float32)}]
    ranges = quantize.calibrate(file, feeds, "percentile")
    # the dear layer (1600) loses more than the cheap one (96), but less for its cost; the product (200) is float anyhow
    for room, kept in ((90, []), (100, ["cheap"]), (1650, ["cheap"]), (1700, ["cheap", "dear"])):
        said = iter([0.1, 0.2])
        monkeypatch.setattr(sensitivity, "distance", lambda found, truth, said=said: next(said))
        found = sensitivity.examine(file, "int8-gpu", ranges, feeds, (room + 200) / (96 + 1600 + 200))
        assert sensitivity.float_nodes(file, found) == [*kept, "product"]


def test_of_two_layers_of_one_cost_the_more_sensitive_stays_float(tmp_path: Path) -> None:
    file = two_layers(tmp_path, out=12)
    feeds = [{"x": np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)} for seed in range(4)]
    found = sensitivity.examine(file, "int8-gpu", quantize.calibrate(file, feeds, "percentile"), feeds, 0.6)
    damage = {report.name: report.damage or 0.0 for report in found}
    low, high = sorted(damage, key=lambda name: damage[name])
    assert damage[high] > 1.05 * damage[low]
    assert [report.name for report in found if not report.quantized] == [high]


@pytest.mark.parametrize(("flavour", "largest"), [("int8-cpu", 64), ("int8-gpu", 127)])
def test_weights_leave_room_for_the_sums_of_processors_without_vnni(tmp_path: Path, flavour: str, largest: int) -> None:
    # vpmaddubsw adds two products in 16 bits and cuts off what doesn't fit
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 65
    file = two_layers(tmp_path)
    feeds = [{"x": np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)} for seed in range(4)]
    quantize.quantize(file, tmp_path / "out.onnx", flavour, quantize.calibrate(file, feeds, "percentile"))
    held = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(held) == 2 and {int(np.abs(weights.astype(int)).max()) for weights in held} == {largest}


def chain(*kinds: str) -> onnx.ModelProto:
    """Convolutions c0, c1, .. with other nodes between them; x begins and y ends."""
    nodes, last, count = [], "x", 0
    for at, kind in enumerate(kinds):
        out = "y" if at == len(kinds) - 1 else f"t{at}"
        if kind == "Conv":
            nodes.append(helper.make_node("Conv", [last, f"w{count}"], [out], name=f"c{count}"))
            count += 1
        else:
            nodes.append(helper.make_node(kind, [last, last] if kind == "Add" else [last], [out], name=f"n{at}"))
        last = out
    return helper.make_model(helper.make_graph(nodes, "g", [], []))


def test_a_layer_between_float_ones_stays_float() -> None:
    three = chain("Conv", "Relu", "Conv", "Clip", "Conv")
    assert sensitivity.between(three, {"c0", "c2"}) == {"c1"}
    # at the ends there is nothing to go back from
    assert sensitivity.between(three, {"c1"}) == set()
    assert sensitivity.between(three, {"c0"}) == set() and sensitivity.between(three, {"c2"}) == set()
    # two in a row are worth the way
    assert sensitivity.between(chain("Conv", "Conv", "Conv", "Conv"), {"c0", "c3"}) == set()
    # additions are in 8 bits, too
    assert sensitivity.between(chain("Conv", "Conv", "Add", "Conv"), {"c0", "c2"}) == set()
    forked = chain("Conv", "Conv", "Conv")
    forked.graph.node.append(helper.make_node("Conv", ["t1", "w9"], ["z"], name="other"))
    assert sensitivity.between(forked, {"c0", "c2"}) == set()
    assert sensitivity.between(forked, {"c0", "c2", "other"}) == {"c1"}


def test_the_distance_is_the_root_mean_square_of_relative_errors() -> None:
    truth = [np.array([3.0, 4.0]), np.array([[1.0], [0.0]])]
    found = [np.array([3.0, 5.0]), np.array([[1.0], [1.0]])]
    assert sensitivity.distance(found, truth) == pytest.approx(np.sqrt(((1 / 5) ** 2 + 1) / 2))
    assert sensitivity.distance(truth, truth) == 0.0


def reports(*rows: tuple[str, int, bool]) -> list[sensitivity.LayerReport]:
    return [
        sensitivity.LayerReport(name=kind, kind=kind, multiply_adds=cost, damage=None, quantized=quantized)
        for kind, cost, quantized in rows
    ]


def test_the_float_share_is_of_multiply_adds_without_the_front_end() -> None:
    rows = reports(("front-end", 900, False), ("layer", 60, True), ("layer", 30, False), ("product", 10, False))
    assert sensitivity.float_share(rows) == pytest.approx(0.4)
    assert sensitivity.FLOAT_SHARE == 0.10


# CUDA graphs


class OnTheHost(nn.Module):
    """Only a number leaves it, which travels with the launch: no copy, but its sum is computed on the CPU each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(3.0).sum()


class Gone(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, torch.zeros(3) + 1


@pytest.mark.parametrize("module", [OnTheHost(), Gone()], ids=["a number", "a tensor"])
def test_work_on_the_cpu_is_a_hazard_where_nothing_is_copied(module: nn.Module) -> None:
    hazards: Sequence[str] = trace(module, (torch.zeros(2, 3),)).hazards
    assert any("computes on the CPU" in hazard for hazard in hazards)
    assert not any("copies between" in hazard for hazard in hazards)
