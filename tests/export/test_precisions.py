"""Real fp16 and int8 bundles of the shipped model: what is in the graphs, and that they keep its accuracy."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from avgn.checkpoint import load_model, save_model
from avgn.export import mixed
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.halves import HalvesEngine
from avgn.export.optimize import optimize
from avgn.export.quantize import layers
from avgn.export.recheck import recheck
from avgn.export.verify import rendered_batches
from avgn.runtime import Bundle, FailureError, InputError, read_manifest
from avgn.runtime.engines import load_engine
from avgn.runtime.manifest import Manifest
from avgn.scenes import SceneConfig, synthesize
from tests.export.models import small_model

pytestmark = pytest.mark.usefixtures("kept_graphs")
TRAINED = Path(__file__).parents[2] / "recipes" / "checkpoint"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    config = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
    return read_manifest(synthesize(tmp_path_factory.mktemp("scenes"), scenes=34, config=config, seed=3, jobs=1))


@pytest.fixture(scope="module")
def bundle(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    options = ExportOptions(
        precisions=("int8-gpu", "fp32", "int8-cpu", "fp16"), calibration=manifest, samples=10, max_drop=3.0
    )
    return export_bundle(TRAINED, tmp_path_factory.mktemp("export") / "bundle", options)


def graph(bundle: Bundle, precision: str, half: str) -> onnx.ModelProto:
    variant = next(v for v in bundle.variants if v.precision == precision)
    return onnx.load(bundle.graph(variant, half))


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    found = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_one_bundle_holds_all_with_what_was_measured(bundle: Bundle) -> None:
    assert [variant.precision for variant in bundle.variants] == ["fp32", "fp16", "int8-cpu", "int8-gpu"]
    size = {
        v.precision: sum(bundle.graph(v, half).stat().st_size for half in ("audio", "image")) for v in bundle.variants
    }
    assert size["fp16"] < 0.62 * size["fp32"] and size["int8-cpu"] < 0.5 * size["fp32"]
    for variant in bundle.variants:
        found = variant.verified
        assert found is not None
        least = {"fp32": 1 - 1e-9, "fp16": 0.9995}.get(variant.precision, 0.98)
        assert found["cosine_maps"] >= least
        if variant.precision != "fp32":
            assert found["ciou_0.3_drop"] <= 3.0
        if variant.precision.startswith("int8"):
            assert found["audio_float_share"] <= 0.1 and found["image_float_share"] <= 0.1
        if variant.precision == "fp16":
            assert found["half_cosine_maps"] >= 0.9995
            assert 1.0 < found["largest_activation"] <= 6e3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-cpu", "int8-gpu"])
@pytest.mark.parametrize("half", ["audio", "image"])
def test_graphs_are_standard_and_typed_at_the_boundary(bundle: Bundle, precision: str, half: str) -> None:
    model = graph(bundle, precision, half)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {""}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds.pop("image", TensorProto.UINT8) == TensorProto.UINT8
    assert set(kinds.values()) == {TensorProto.FLOAT}


@pytest.mark.parametrize("half", ["audio", "image"])
def test_fp16_graphs_keep_what_is_delicate_in_float32(bundle: Bundle, half: str) -> None:
    model = graph(bundle, "fp16", half)
    found = types(model)
    delicate = {"LayerNormalization", "Softmax", "LogSoftmax", "ReduceL2", "Log", "Sqrt", "Pow", "ReduceSum", "Sigmoid"}
    seen = set()
    for node in model.graph.node:
        if node.op_type in delicate:
            seen.add(node.op_type)
            assert found.get(node.input[0], TensorProto.FLOAT) == TensorProto.FLOAT, node.name
    assert {"LayerNormalization", "Softmax", "Sigmoid"} <= seen
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert sum(found[node.input[1]] == TensorProto.FLOAT16 for node in convolutions) >= 20
    frontend = {layer.node for layer in layers(model) if layer.kind == "front-end"}
    assert bool(frontend) == (half == "audio")
    assert all(found[node.input[1]] == TensorProto.FLOAT for node in convolutions if node.name in frontend)


@pytest.mark.parametrize("half", ["audio", "image"])
def test_int8_flavours_hold_what_their_engines_take(bundle: Bundle, half: str) -> None:
    for precision, zero_points in (("int8-cpu", TensorProto.UINT8), ("int8-gpu", TensorProto.INT8)):
        model = graph(bundle, precision, half)
        values = {tensor.name: tensor for tensor in model.graph.initializer}
        consumers: dict[str, set[str]] = {}
        for node in model.graph.node:
            for name in node.input:
                consumers.setdefault(name, set()).add(node.op_type)
        quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert len(quantizers) > 20
        for node in quantizers:
            assert values[node.input[2]].data_type == zero_points
            if precision == "int8-gpu":
                assert numpy_helper.to_array(values[node.input[2]]) == 0
        if precision == "int8-gpu":
            assert not any(tensor.data_type == TensorProto.INT32 for tensor in values.values())
            for node in model.graph.node:
                if node.op_type == "DequantizeLinear":
                    assert not consumers[node.output[0]] & {"Add", "MaxPool", "Relu"}
        else:
            made = {node.output[0]: node.op_type for node in model.graph.node}
            # half of the codes would go to what a ReLU takes away
            halved = [n for n in model.graph.node if n.op_type == "Relu" and made[n.input[0]] == "DequantizeLinear"]
            assert not halved
        per_channel = [
            node
            for node in model.graph.node
            if node.op_type == "DequantizeLinear" and values[node.input[1]].dims and node.input[0] in values
        ]
        assert len(per_channel) > 20


def test_verifying_again_gives_the_same_in_every_engine(bundle: Bundle) -> None:
    rows = recheck(bundle.path, checkpoint=str(TRAINED))
    assert {(row["precision"], row["engine"]) for row in rows} == {
        (precision, engine)
        for precision in ("fp32", "fp16", "int8-cpu", "int8-gpu")
        for engine in ("onnxruntime", "openvino")
    }
    for row in rows:
        assert row["failure"] is None, row
        if row["precision"] == "fp32":
            assert row["metrics"]["max_abs_maps"] <= 1e-5


def test_threads_share_an_openvino_engine(bundle: Bundle) -> None:
    from concurrent.futures import ThreadPoolExecutor

    engine = load_engine(bundle, bundle.variants[0], "openvino")
    batches = rendered_batches(bundle.info, (1, 2, 3, 1))
    alone = [engine.run_audio(batch.waveform)["sources"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.run_audio(batch.waveform)["sources"], batches * 5))
    for at, found in enumerate(together):
        np.testing.assert_allclose(found, alone[at % 4], atol=1e-6)


def test_a_drop_in_accuracy_is_refused(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("avgn.export.bundle")

    # the core's accuracy is measured first: a variant that were that much worse must not be kept
    real = module.accuracy
    scores = iter([100.0])
    monkeypatch.setattr(
        module, "accuracy", lambda engine, data: real(engine, data) | {"CIoU@0.3": next(scores, 98.5), "CAP": 1.0}
    )
    small = replace(manifest, items=manifest.items[:6])
    with pytest.raises(FailureError, match="fp16 lowers CIoU@0.3 from 100.0 to 98.5, by more than 1 points"):
        export_bundle(TRAINED, tmp_path / "b", ExportOptions(precisions=("fp16",), guard=small))
    assert list(tmp_path.iterdir()) == []


def test_fp16_that_would_overflow_is_refused(tmp_path: Path) -> None:
    model = load_model(TRAINED)
    with torch.no_grad():
        model.get_parameter("visual_encoder.backbone.layer1.0.bn1.weight").mul_(1e5)
    save_model(model, tmp_path / "loud")
    with pytest.raises(FailureError, match=r"fp16 overflows: visual_encoder.* reaches .*, at most 6000 is safe"):
        export_bundle(tmp_path / "loud", tmp_path / "b", ExportOptions(precisions=("fp16",)))
    assert [path.name for path in tmp_path.iterdir()] == ["loud"]


def test_activations_are_watched_in_half_precision() -> None:
    model = mixed.to_mixed(optimize(load_model(TRAINED)))
    engine = HalvesEngine(model)
    batch = rendered_batches(engine.info, (1,))[0]
    found = mixed.largest_activations(
        model, lambda: engine.run_image(batch.image, engine.run_audio(batch.waveform)["sources"])
    )
    assert found["visual_encoder.backbone.inner.layer4"] > 0
    assert any(name.startswith("audio_transformer") for name in found)
    assert not any(name.startswith("frontend") or "norm" in name for name in found)


def test_calibration_and_guard_must_not_share_items(manifest: Manifest, tmp_path: Path) -> None:
    def attempt(calibration: Manifest, guard: Manifest | None, samples: int | None = None) -> None:
        options = ExportOptions(precisions=("int8-cpu",), calibration=calibration, guard=guard, samples=samples)
        export_bundle(TRAINED, tmp_path / "b", options)

    with pytest.raises(InputError, match="share 10 items"):
        attempt(replace(manifest, items=manifest.items[:10]), manifest)
    with pytest.raises(InputError, match="holds no item with a frame and a sound"):
        attempt(replace(manifest, items=()), None)
    with pytest.raises(InputError, match="leaves no annotated item beyond its first 20"):
        attempt(replace(manifest, items=manifest.items[:20]), None)
    with pytest.raises(InputError, match="holds no item with boxes"):
        attempt(manifest, replace(manifest, items=()), 5)
    with pytest.raises(InputError, match="--samples must be at least 1"):
        attempt(manifest, None, 0)
    with pytest.raises(InputError, match="only the manifest has"):
        attempt(replace(manifest, classes=(*manifest.classes, "tuba")), None, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_verified_against_its_own_model_alone(bundle: Bundle, tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "other")
    with pytest.raises(InputError, match=r"is not the model of bundle .* \(its classes or its window differ\)"):
        recheck(bundle.path, checkpoint=str(tmp_path / "other"))
    halved = load_model(TRAINED)
    with torch.no_grad():
        halved.get_parameter("visual_encoder.project.weight")[:64] = 0.0
    save_model(halved, tmp_path / "halved")
    rows = recheck(bundle.path, checkpoint=str(tmp_path / "halved"))
    assert all("differ from the model" in str(row["failure"]) for row in rows)
