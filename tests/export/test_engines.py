"""Real TensorRT for RTX engines, built without a GPU; reading one back needs a driver, so no test runs one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from avgn.checkpoint import load_model, save_model
from avgn.config import preset
from avgn.engine import describe
from avgn.export import engine_builder
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.formats import FORMATS, format_table
from avgn.export.graphs import write_graphs
from avgn.export.quantize import calibrate, quantize
from avgn.export.variants import Maker, describe_variant
from avgn.model import build_model
from avgn.runtime import Bundle, FailureError, InputError
from avgn.runtime.bundle_schema import Variant
from avgn.runtime.contract import INPUTS
from tests.export.models import small_model

pytestmark = pytest.mark.usefixtures("kept_graphs")
TRAINED = Path(__file__).parents[2] / "recipes" / "checkpoint"
TARGETS = ("8.9", "12.0")
PROFILE = engine_builder.Profile(batch=(1, 4, 16), height=(32, 224, 640), width=(32, 224, 640))
library = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this platform")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module", params=["avgn-tiny", "avgn-resnet18"])
def variants(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Variant]]:
    """The graphs of a preset in the three precisions that TensorRT takes, with their entries of bundle.json."""
    torch.manual_seed(0)
    # the trained one's graphs are those of other tests, too
    model = load_model(TRAINED) if request.param == "avgn-tiny" else build_model(preset(request.param)).eval()
    folder = tmp_path_factory.mktemp(request.param)
    maker = Maker(model=model, folder=folder, opset=18, facts={})
    files = {
        "fp32": write_graphs(maker.optimized, folder, opset=18, facts={}),
        "fp16": write_graphs(maker.optimized_for("fp16", gpu=True), folder, opset=18, facts={}, suffix=".fp16"),
        "int8-gpu": {},
    }
    config, rng = model.config, np.random.default_rng(0)
    feeds: dict[str, dict[str, Any]] = {
        "audio": {"waveform": rng.standard_normal((1, config.window_samples)).astype(np.float32) * 0.1},
        "image": {
            "image": rng.integers(0, 256, (1, *config.image_size, 3), dtype=np.uint8),
            "sources": rng.standard_normal((1, config.num_maps, config.dim)).astype(np.float32),
        },
    }
    for half, feed in feeds.items():
        files["int8-gpu"][half] = folder / f"{half}.int8-gpu.onnx"
        ranges = calibrate(files["fp32"][half], [feed], "percentile")
        quantize(files["fp32"][half], files["int8-gpu"][half], "int8-gpu", ranges)
    return {
        name: (folder, describe_variant(describe(model), config.dim, found, precision=name))
        for name, found in files.items()
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-gpu"])
@pytest.mark.parametrize("half", ["audio", "image"])
def test_engines_of_both_presets_are_built(
    variants: dict[str, tuple[Path, Variant]], precision: str, half: str, own_cache: Path
) -> None:
    folder, variant = variants[precision]
    graph = folder / getattr(variant, half)
    sizes = {}
    for target in TARGETS:
        data = engine_builder.build(
            "tensorrt-rtx",
            graph,
            inputs=variant.inputs[half],
            outputs=variant.outputs[half],
            profile=PROFILE,
            compute_capability=target,
        )
        sizes[target] = len(data)
    # an engine holds the weights in its precision
    assert all(size > 0.6 * graph.stat().st_size for size in sizes.values())
    assert len(list((own_cache / "engines").iterdir())) == len(TARGETS)


@pytest.mark.parametrize("half", ["audio", "image"])
def test_parsed_networks_have_the_contracts_tensors_and_profiles(
    variants: dict[str, tuple[Path, Variant]], half: str
) -> None:
    folder, variant = variants["fp16"]
    logger = engine_builder._logger(library)
    builder = library.Builder(logger)
    network, parser = engine_builder.parse(library, builder, logger, folder / getattr(variant, half))
    names = [network.get_input(at).name for at in range(network.num_inputs)]
    assert tuple(names) == INPUTS[half]
    engine_builder.check_network(library, network, variant.inputs[half], variant.outputs[half], "graph")
    config = engine_builder.configure(library, builder, network, variant.inputs[half], PROFILE, "8.9")
    assert config.num_optimization_profiles == 1
    assert not config.get_flag(library.BuilderFlag.TF32)
    assert config.get_compute_capability(0) == library.ComputeCapability.SM89
    strong = library.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert network.get_flag(strong)
    image = next((spec for spec in variant.inputs[half] if spec.name == "image"), None)
    if image is not None:
        assert PROFILE.shapes(image) == ((1, 32, 32, 3), (4, 224, 224, 3), (16, 640, 640, 3))
    # another contract is told apart
    with pytest.raises(FailureError, match="finds the outputs"):
        engine_builder.check_network(library, network, variant.inputs[half], variant.outputs[half][:1], "graph")
    del parser


def test_an_export_with_engines_keeps_them_unverified_beside_their_graphs(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(small_model(), tmp_path / "c")
    options = ExportOptions(
        precisions=("fp32", "fp16"),
        formats=("onnx", "tensorrt-rtx"),
        compute_capabilities=TARGETS,
        batch=(1, 2, 4),
        image_size=(96, 96),
    )
    said: list[str] = []
    bundle = export_bundle(tmp_path / "c", tmp_path / "b", options, report=said.append)
    assert bundle.image_size == (96, 96) and bundle.grid == (6, 6)
    rows = [(v.precision, v.engine, v.target, v.verified is None) for v in bundle.variants]
    assert rows == [
        (precision, engine, target, engine == "tensorrt-rtx")
        for precision in ("fp32", "fp16")
        for engine, target in (("onnxruntime", "any"), ("tensorrt-rtx", "sm_89"), ("tensorrt-rtx", "sm_120"))
    ]
    assert Bundle.load(bundle.path).info.provenance["tensorrt-rtx"] == library.__version__
    # the same graphs for the same targets come from the cache
    built = len(list((own_cache / "engines").iterdir()))
    engine = next(v for v in bundle.variants if v.engine == "tensorrt-rtx")
    parent = bundle.variants[0]
    profile = engine_builder.Profile(batch=(1, 2, 4), height=(32, 96, 1024), width=(32, 96, 1024))
    monkeypatch.setattr(engine_builder, "parse", lambda *_: pytest.fail("built again"))
    again = engine_builder.build(
        "tensorrt-rtx",
        bundle.graph(parent, "audio"),
        inputs=parent.inputs["audio"],
        outputs=parent.outputs["audio"],
        profile=profile,
        compute_capability="8.9",
        report=said.append,
    )
    assert again == bundle.graph(engine, "audio").read_bytes() and "from the cache" in said[-1]
    assert len(list((own_cache / "engines").iterdir())) == built


def test_a_node_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Bernoulli", ["waveform"], ["sources"], name="the_culprit")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("waveform", "sources")]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "g.onnx")
    with pytest.raises(FailureError, match="can't read g.onnx at node the_culprit"):
        engine_builder.build(
            "tensorrt-rtx", tmp_path / "g.onnx", inputs=(), outputs=(), profile=PROFILE, compute_capability="8.9"
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_way_out_is_named(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "c")
    with pytest.raises(InputError, match=r"format tensorrt builds .* this machine has none: use .*tensorrt-rtx"):
        export_bundle(tmp_path / "c", tmp_path / "b", ExportOptions(formats=("tensorrt",)))
    with pytest.raises(InputError, match="name the targets, for example --compute-capability 8.6"):
        export_bundle(tmp_path / "c", tmp_path / "b", ExportOptions(formats=("tensorrt-rtx",)))
    with pytest.raises(InputError, match=r"compute capability '9.0' can't be built for: choose from 7.5, 8.0"):
        export_bundle(
            tmp_path / "c",
            tmp_path / "b",
            ExportOptions(formats=("tensorrt-rtx",), compute_capabilities=("9.0",)),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_missing_library_is_named() -> None:
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = None\n"
        "from avgn.export.engine_builder import load_library\nload_library('tensorrt-rtx')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "MissingExtraError: tensorrt_rtx is not installed: pip install 'avgn[rtx]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ("coreml",)}, "format 'coreml' is not known: choose from onnx, aoti, tensorrt, tensorrt-rtx"),
        ({"precisions": ("bf16",)}, "precision 'bf16' is not known"),
        ({"precisions": ()}, "no precision was given"),
        ({"precisions": ("fp32", "fp32")}, "names one twice"),
        ({"precisions": ("int8-cpu",)}, "pass --calibration MANIFEST"),
        (
            {"precisions": ("int8-cpu",), "formats": ("tensorrt-rtx",)},
            "precision int8-cpu is not for format tensorrt-rtx: use fp32, fp16, int8-gpu",
        ),
        ({"batch": (1, 2, 4)}, "format onnx takes no --batch: it takes --opset, --calibration"),
        ({"compute_capabilities": ("8.9",)}, "format onnx takes no --compute-capability"),
        ({"formats": ("tensorrt-rtx",), "batch": (4, 2, 8)}, "--batch must be MIN,OPT,MAX in rising order"),
        ({"image_size": (100, 96)}, "--image-size must be H,W divisible by 32"),
        ({"max_drop": 1.0}, "--max-drop is measured on annotated items"),
        ({"samples": 4}, "--samples counts items of --calibration"),
        ({"opset": 11}, "opset must be at least 18"),
    ],
    ids=str,
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportOptions(**options)


def test_the_table_lists_every_format() -> None:
    lines = format_table()
    assert len(lines) == 1 + len(FORMATS)
    assert all(any(line.startswith(name) for line in lines) for name in FORMATS)
