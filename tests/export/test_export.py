"""A real export: what it writes, that it is verified, and that nothing is left behind when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from avgn.checkpoint import load_model, save_model
from avgn.engine import TorchEngine
from avgn.evaluation import evaluate
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.cost import multiply_adds
from avgn.export.graphs import MIN_OPSET, write_graphs
from avgn.export.optimize import optimize
from avgn.export.verify import check_tolerance, compare, rendered_batches
from avgn.runtime import Bundle, FailureError, InputError, Localizer, read_manifest
from tests.export.models import small_model
from tests.squares import CLASSES, write_squares

pytestmark = pytest.mark.usefixtures("kept_graphs")
SHIPPED = Path(__file__).parents[2] / "recipes" / "checkpoint"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small_model(), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(checkpoint, tmp_path_factory.mktemp("export") / "bundle")


def test_the_bundle_describes_itself_and_is_verified(bundle: Bundle) -> None:
    assert sorted(path.name for path in bundle.path.iterdir()) == ["audio.onnx", "bundle.json", "image.onnx"]
    assert bundle.classes == CLASSES and bundle.image_size == (64, 96) and bundle.grid == (4, 6)
    assert bundle.thresholds.audio == (0.4, 0.5, 0.6, 0.7)
    variant = bundle.variants[0]
    assert variant.precision == "fp32" and variant.verified is not None
    for name in ("max_abs_sources", "max_abs_audio_prob", "max_abs_maps", "max_abs_visual_prob"):
        assert variant.verified[name] <= 1e-5
    assert len(bundle.info.provenance["checkpoint_sha256"]) == 64


def test_graphs_hold_standard_operators_and_the_facts(bundle: Bundle) -> None:
    for half in ("audio", "image"):
        graph = onnx.load(bundle.graph(bundle.variants[0], half))
        onnx.checker.check_model(graph, full_check=True)
        assert {node.domain for node in graph.graph.node} <= {""}
        assert not graph.functions
        assert not any(node.op_type in ("STFT", "DFT", "BatchNormalization", "Dropout") for node in graph.graph.node)
        assert graph.opset_import[0].version >= 18
        facts = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
        assert tuple(facts["classes"]) == CLASSES and facts["sample_rate"] == 22_050
        assert not any(tensor.external_data for tensor in graph.graph.initializer)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("size", [(64, 96), (32, 32), (96, 160)])
def test_any_batch_and_size_divisible_by_32_gives_the_models_maps(
    bundle: Bundle, batch: int, size: tuple[int, int]
) -> None:
    model = small_model()
    rng = np.random.default_rng(batch)
    waveform = rng.standard_normal((batch, model.config.window_samples)).astype(np.float32)
    image = rng.integers(0, 256, (batch, *size, 3), dtype=np.uint8)
    audio, picture = (
        onnxruntime.InferenceSession(str(bundle.graph(bundle.variants[0], half)), providers=["CPUExecutionProvider"])
        for half in ("audio", "image")
    )
    sources, heard = audio.run(None, {"waveform": waveform})
    maps, seen = picture.run(None, {"image": image, "sources": sources})
    with torch.no_grad():
        expected_audio = model.encode_audio(torch.from_numpy(waveform))
        expected_image = model.encode_image(torch.from_numpy(image))
        expected = model.localize(expected_audio, expected_image)
    assert expected_audio.logit is not None and expected_image.logit is not None
    np.testing.assert_allclose(maps, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(heard, expected_audio.logit.sigmoid().numpy(), atol=1e-5)
    np.testing.assert_allclose(seen, expected_image.logit.sigmoid().numpy(), atol=1e-5)


def test_checkpoint_and_bundle_are_evaluated_by_the_same_code_and_agree(
    checkpoint: Path, bundle: Bundle, tmp_path: Path
) -> None:
    manifest = read_manifest(write_squares(tmp_path / "data", 24, seed=5))
    core = evaluate(TorchEngine(small_model()), manifest, bootstrap=0)
    exported = evaluate(Localizer.load(bundle).engine, manifest, bootstrap=0)
    for one, other in zip(core, exported, strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], abs=0.05, nan_ok=True)


@pytest.mark.parametrize(
    "options",
    [
        {"ablation": "neither", "visual_gate": "none"},
        {"assignment": "hard"},
        {"visual_gate": "none", "frontend": "release"},
        {"audio_gate": "eps", "attention": "literal"},
    ],
    ids=["neither", "hard", "release-frontend", "eps-literal"],
)
def test_other_variants_export_and_stream(options: dict[str, Any], tmp_path: Path) -> None:
    save_model(small_model(**options), tmp_path / "c")
    bundle = export_bundle(tmp_path / "c", tmp_path / "b")
    localizer = Localizer.load(bundle)
    stream = localizer.open_stream(mode="file")
    stream.push_audio(np.zeros(22_050, np.float32), 22_050, 0.0)
    results = stream.push_frame(np.zeros((48, 64, 3), np.uint8), 0.1) + stream.flush()
    assert len(results) == 1 and results[0].maps.shape[0] == bundle.info.grid[0] * 0 + len(bundle.classes)


def test_graphs_that_differ_from_the_model_are_refused(bundle: Bundle) -> None:
    other = small_model()
    with torch.no_grad():
        other.visual_encoder.project.weight[0] += 0.5
    scenes = rendered_batches(bundle.info, (2,))
    metrics = compare(TorchEngine(other), Localizer.load(bundle).engine, scenes)
    with pytest.raises(FailureError, match="the fp32 graphs differ from the model: max_abs_maps"):
        check_tolerance(metrics, "fp32")


def test_a_failed_export_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avgn.export import bundle as module

    def interrupt(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoint, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused(checkpoint: Path, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        export_bundle(checkpoint, bundle.path)
    with pytest.raises(InputError, match="opset must be at least 18"):
        export_bundle(checkpoint, tmp_path / "b", ExportOptions(opset=11))
    with pytest.raises(InputError, match=r"holds no config.json"):
        export_bundle(tmp_path / "none", tmp_path / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        export_bundle(checkpoint, tmp_path / "file" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_shipped_bundle_is_what_an_export_gives(tmp_path: Path) -> None:
    """Its graphs do the operations of today's optimized model, not those of an older exporter."""
    shipped = Bundle.load("tiny")
    fresh = write_graphs(optimize(load_model(SHIPPED)), tmp_path, opset=MIN_OPSET, facts={})
    feeds: dict[str, dict[str, Any]] = {
        "audio": {"waveform": np.zeros((1, shipped.info.window_samples), np.float32)},
        "image": {
            "image": np.zeros((1, *shipped.image_size, 3), np.uint8),
            "sources": np.zeros((1, len(shipped.classes), 128), np.float32),
        },
    }
    for half, file in fresh.items():
        held = onnx.load(shipped.graph(shipped.variants[0], half))
        made = onnx.load(file)
        assert sorted(multiply_adds(held, feeds[half]).values()) == sorted(multiply_adds(made, feeds[half]).values())
