"""The world model through the export: graphs of patches, weights stored as float16, engines that agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from avgn.checkpoint import load_model, save_model
from avgn.config import preset
from avgn.encoders.rounding import round_weights
from avgn.engine import TorchEngine
from avgn.export import sensitivity
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.quantize import Feed, layers
from avgn.export.recheck import recheck
from avgn.export.storage import store_halves
from avgn.runtime.bundle import Bundle
from avgn.runtime.contract import TOLERANCES
from avgn.runtime.engines import choose_engine
from avgn.runtime.engines.base import GraphEngine
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import SceneConfig, synthesize
from avgn.teach.bundles import read_tokens
from avgn.teach.writing import write_taught
from avgn.world.model import WorldLocalizer

pytestmark = pytest.mark.slow
LABELS = ("dog", "speech", "violin")
# int8-gpu takes the same way as int8-cpu, and as long
SMALLER = ("fp32", "fp16", "int8-cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchEngine, Bundle]:
    return export(tmp_path_factory.mktemp("world"), SMALLER)


def export(folder: Path, precisions: tuple[str, ...]) -> tuple[TorchEngine, Bundle]:
    torch.manual_seed(0)
    model = WorldLocalizer(preset("avgn-world", classes=LABELS, image_size=(64, 64))).eval()
    round_weights(model)
    save_model(model, folder / "checkpoint", training={"converted": "nothing"})
    # that every layer is tried alone is tested with the other models, and takes minutes here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "examine", all_in_8_bits)
        options = ExportOptions(precisions=precisions, calibration=scenes(folder / "scenes"), samples=4, max_drop=100)
        bundle = export_bundle(folder / "checkpoint", folder / "bundle", options)
    return TorchEngine(load_model(folder / "checkpoint")), bundle


def scenes(folder: Path) -> Manifest:
    """Drawn things under the names of real ones."""
    config = SceneConfig(split="val", sources=(1, 1), silent=(0, 0), off_screen=0.0, size=(64, 64), seconds=3.0)
    manifest = read_manifest(synthesize(folder, scenes=6, config=config, seed=0, jobs=1))
    items = [
        replace(item, sources=tuple(replace(each, label=LABELS[len(item.id) % 3]) for each in item.sources[:1]))
        for item in manifest.items
    ]
    return replace(manifest, classes=LABELS, items=tuple(items))


def all_in_8_bits(file: Path, *rest: object) -> list[sensitivity.LayerReport]:
    return [
        sensitivity.LayerReport(
            name=layer.name, kind=layer.kind, multiply_adds=1, damage=None, quantized=layer.kind == "layer"
        )
        for layer in layers(onnx.load(file))
    ]


def test_the_graphs_hold_patches_and_halves(exported: tuple[TorchEngine, Bundle]) -> None:
    core, bundle = exported
    variant = next(each for each in bundle.variants if each.precision == "fp32")
    assert variant.verified is not None and variant.verified["max_abs_maps"] <= 1e-5
    assert variant.inputs["audio"][0].shape == ("batch", 15_600)
    assert bundle.info.patches == core.info.patches and bundle.info.joint == core.info.joint
    parameters = sum(p.numel() for p in core.model.parameters())
    size = sum((bundle.path / name).stat().st_size for name in (variant.audio, variant.image))
    assert size < 2.6 * parameters


@pytest.mark.parametrize("precision", SMALLER)
def test_a_class_far_behind_the_others_keeps_a_finite_map(
    exported: tuple[TorchEngine, Bundle], precision: str, tmp_path: Path
) -> None:
    _, bundle = exported
    graph = onnx.load(bundle.path / next(each.image for each in bundle.variants if each.precision == precision))
    bias = next(each for each in graph.graph.initializer if re.fullmatch(r"cell_tokens\.rows\.(\w+\.)?bias", each.name))
    # float32 holds no exponential of -300
    values = onnx.numpy_helper.to_array(bias)
    behind = (values - 300 * np.arange(len(values))).astype(values.dtype)
    bias.CopyFrom(onnx.numpy_helper.from_array(behind, bias.name))
    onnx.save(graph, tmp_path / "image.onnx")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    feed: Feed = {"image": image, "sources": np.zeros((1, len(LABELS), 1), np.float32)}
    assert all(np.isfinite(value).all() for value in sensitivity.run(tmp_path / "image.onnx", [feed]))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_agree_with_the_model_on_whole_windows(exported: tuple[TorchEngine, Bundle], backend: str) -> None:
    core, bundle = exported
    engine = choose_engine(bundle, backend, "fp32")
    random = np.random.default_rng(0)
    waveform = (0.1 * random.standard_normal((2, core.info.window_samples))).astype(np.float32)
    waveform *= np.linspace(0, 1, core.info.window_samples, dtype=np.float32)
    image = random.integers(0, 256, (2, 96, 64, 3), dtype=np.uint8)
    expected, found = (one.run_audio(waveform) for one in (core, engine))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3, rtol=1e-3)
    for name, values in core.run_image(image, expected["sources"]).items():
        np.testing.assert_allclose(engine.run_image(image, found["sources"])[name], values, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("precision", SMALLER[1:])
def test_smaller_graphs_agree_in_both_engines(exported: tuple[TorchEngine, Bundle], precision: str) -> None:
    core, bundle = exported
    random = np.random.default_rng(0)
    waveform = (0.1 * random.standard_normal((1, core.info.window_samples))).astype(np.float32)
    image = random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    found = []
    for backend in ("onnxruntime", "openvino"):
        engine = choose_engine(bundle, backend, precision)
        heard = engine.run_audio(waveform)
        assert isinstance(engine, GraphEngine)
        assert engine.run_patches(waveform[:, :15_600]).shape == (1, 3, 1)
        found.append(heard | engine.run_image(image, heard["sources"]))
    one, other = (np.concatenate([values[name].ravel() for name in ("sources", "maps")]) for values in found)
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert cosine >= TOLERANCES[precision].engine_cosine
    graph = onnx.load(bundle.path / f"image.{precision}.onnx")
    kinds = [node.op_type for node in graph.graph.node]
    if precision == "int8-cpu":
        # what is left of the clips of 81 layers are those of BlazeFace's scores
        assert kinds.count("QuantizeLinear") > 40 and kinds.count("Clip") <= 2


def test_only_what_loses_nothing_is_stored_as_halves(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal((64, 64)).astype(np.float16).astype(np.float32)
    other = random.standard_normal((64, 64)).astype(np.float32)
    large = exact * 1e6
    weights = {"exact": exact, "other": other, "large": large}
    nodes, last = [], "x"
    for name in weights:
        nodes.append(onnx.helper.make_node("MatMul", [last, name], [f"after {name}"]))
        last = f"after {name}"
    graph = onnx.helper.make_graph(
        nodes,
        "some",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["n", 64])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "whole.onnx")
    stored = onnx.load(store_halves(tmp_path / "whole.onnx", tmp_path / "stored.onnx"))
    kinds = {tensor.name: tensor.data_type for tensor in stored.graph.initializer}
    float16, float32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds == {"exact.half": float16, "other": float32, "large": float32}
    import onnxruntime

    x = random.standard_normal((3, 64)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"x": x})[0] for name in ("whole.onnx", "stored.onnx")
    )
    np.testing.assert_array_equal(before, after)


def test_bytes_stay_bytes_where_their_mean_is_whole(exported: tuple[TorchEngine, Bundle]) -> None:
    _, bundle = exported
    graph = onnx.load(bundle.path / "image.int8-cpu.onnx").graph
    # the size is read from the picture, too
    (first,) = [node for node in graph.node if "image" in node.input and node.op_type != "Shape"]
    assert first.op_type == "Transpose"
    assert "image_mean" not in {tensor.name for tensor in graph.initializer}


def test_every_precision_of_a_bundle_is_taught(exported: tuple[TorchEngine, Bundle], tmp_path: Path) -> None:
    """Without the person the face detector goes; the same rows again are a class that NumPy knows the outputs of."""
    check_taught(exported[1], SMALLER, tmp_path)


@pytest.mark.soak
def test_int8_gpu_is_taught(tmp_path: Path) -> None:
    precisions = ("fp32", "int8-gpu")
    check_taught(export(tmp_path, precisions)[1], precisions, tmp_path)


def check_taught(bundle: Bundle, precisions: Sequence[str], tmp_path: Path) -> None:
    source = read_tokens(bundle)
    dog, _, violin = source.tokens
    twin = replace(dog, label="twin", origin=None)
    made = write_taught(source, [violin, twin, dog], tmp_path / "new", provenance={"taught": {"twin": {}}})
    assert [variant.precision for variant in made.variants] == list(precisions)
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    for variant in made.variants:
        assert variant.verified is not None
        assert variant.verified["max_abs_kept_maps"] <= (3e-2 if variant.precision == "fp16" else 1e-5)
        assert variant.verified["max_abs_taught_sources"] <= (3e-2 if variant.precision == "fp16" else 1e-3)
        assert not any("face." in each.name for each in onnx.load(made.graph(variant, "image")).graph.initializer)
        engine = choose_engine(made, "onnxruntime", variant.precision)
        maps = engine.run_image(image, np.zeros((1, 3, 1), np.float32))["maps"][0]
        np.testing.assert_allclose(maps[1], maps[2], atol=1e-5)
    assert not any(row["failure"] for row in recheck(made.path))
