"""The benchmark's numbers fit together, and what can't be measured is said."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from avgn.benchmarking import BenchmarkOptions, format_report, run_benchmark
from avgn.benchmarking.operations import count_operations
from avgn.benchmarking.plan import plan_rows
from avgn.benchmarking.plot import plot_report, short_names
from avgn.benchmarking.process import one_sentence, run_job
from avgn.benchmarking.stages import STAGES
from avgn.runtime import Bundle, FailureError, InputError
from avgn.runtime.bundle import resolve_bundle_path
from avgn.scenes import SceneConfig, synthesize
from tests.processes import children

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = str(ROOT / "recipes" / "checkpoint")
SPREAD = {"p20", "p50", "p80"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two engines, two batches, two rounds and the pipeline; no checkpoint."""
    options = BenchmarkOptions(
        batches=(1, 2),
        threads=(1,),
        backends=("onnxruntime", "openvino", "tensorrt", "torch"),
        rounds=2,
        repeats=8,
        video_seconds=1.0,
    )
    return run_benchmark(["tiny"], options)


@pytest.fixture(scope="module")
def with_core(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """PyTorch and ONNX Runtime, compared with the checkpoint and on annotated scenes."""
    scenes = synthesize(
        tmp_path_factory.mktemp("scenes") / "set", scenes=4, config=SceneConfig(split="test"), seed=1, jobs=1
    )
    options = BenchmarkOptions(
        batches=(1,), threads=(1,), backends=("onnxruntime", "torch"), rounds=1, repeats=5, video_seconds=0
    )
    return run_benchmark(["tiny"], options, checkpoints=[CHECKPOINT], manifest=scenes)


def working(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if row["failure"] is None]


def test_every_row_is_there_once(report: dict[str, Any]) -> None:
    found = {(row["backend"], row["precision"], row["batch"], row["threads"]) for row in working(report)}
    assert found == {(name, "fp32", batch, 1) for name in ("onnxruntime", "openvino") for batch in (1, 2)}
    failures = {row["backend"]: row["failure"] for row in report["rows"] if row["failure"] is not None}
    assert set(failures) == {"tensorrt", "torch"} and len(report["rows"]) == 6
    assert "--checkpoint" in failures["torch"]
    assert any(words in failures["tensorrt"] for words in ("not installed", "GPU", "driver", "--format tensorrt"))


def test_the_numbers_of_a_row_fit_together(report: dict[str, Any]) -> None:
    operations = report["bundles"][0]["multiply_adds"]
    folder = resolve_bundle_path("tiny")
    size = sum(file.stat().st_size for file in folder.glob("*.onnx")) / 1e6
    peak = next(one for one in report["peaks"] if one["kind"] == "fp32")
    assert operations["audio"] > 10**6 and operations["image"] > 10**6
    for row in working(report):
        wall, cpu, memory = row["wall_ms"], row["cpu_ms"], row["memory_mb"]
        assert row["size_mb"] == pytest.approx(size)
        # throughput comes of the mean, latency is the median: they agree but for outliers
        assert row["throughput"]["p50"] * wall["pair"]["p50"] / 1e3 == pytest.approx(row["batch"], rel=0.5)
        assert wall["audio"]["p50"] + wall["image"]["p50"] == pytest.approx(wall["pair"]["p50"], rel=0.3)
        assert wall["pair"]["p50"] <= wall["pair"]["p95"]
        # one thread can't compute for longer than it takes
        assert 0 < cpu["pair"]["p50"] <= 1.3 * row["batch"] / row["throughput"]["p20"] * 1e3
        done = 2e-9 * (operations["audio"] + operations["image"]) * row["throughput"]["p50"]
        assert row["gflops"]["p50"] == pytest.approx(done)
        assert row["gflops"]["p50"] < 1.1 * peak["gops"]
        assert row["share_of_peak"] == pytest.approx(done / peak["gops"])
        assert 5 < memory["before"] < memory["peak"] < 2000
        assert row["load_ms"]["p50"] > 1 and row["first_run_ms"]["p50"] > 1
        assert (row["rounds"], row["repeats"]) == (2, 16)


def test_speed_is_relative_to_the_first_row_that_works(report: dict[str, Any]) -> None:
    assert report["baseline"] == "onnxruntime/fp32"
    rate = {(row["backend"], row["batch"]): row["throughput"] for row in working(report)}
    for row in working(report):
        base = rate["onnxruntime", row["batch"]]
        if row["backend"] == "onnxruntime":
            assert row["speedup"] == dict.fromkeys(SPREAD, 1.0)
        mine = rate[row["backend"], row["batch"]]
        assert mine["p20"] / base["p80"] <= row["speedup"]["p50"] <= mine["p80"] / base["p20"]


def test_without_a_checkpoint_the_fp32_graphs_are_the_reference(report: dict[str, Any]) -> None:
    for row in working(report):
        accuracy = row["accuracy"]
        assert accuracy["reference"] == "fp32 graphs in ONNX Runtime"
        # other numbers of threads add in another order
        assert accuracy["max_abs_maps"] < (1e-6 if row["backend"] == "onnxruntime" else 1e-4)
        assert accuracy["cosine_maps"] == pytest.approx(1.0, abs=1e-5)


def test_the_pipeline_is_measured_stage_by_stage(report: dict[str, Any]) -> None:
    assert [(one["backend"], one["failure"]) for one in report["stages"]] == [("onnxruntime", None), ("openvino", None)]
    for one in report["stages"]:
        assert tuple(one["wall_ms"]) == tuple(one["cpu_ms"]) == tuple(one["share"]) == STAGES
        assert all(value > 0 for value in one["wall_ms"].values()) and sum(one["share"].values()) == pytest.approx(1)
        pipeline = one["pipeline"]
        assert one["frames"] == 25
        assert pipeline["real_time_factor"]["p50"] * pipeline["frames_per_second"]["p50"] == pytest.approx(25, rel=0.2)


def test_with_a_checkpoint_the_core_is_the_reference(with_core: dict[str, Any]) -> None:
    rows = {row["backend"]: row for row in working(with_core)}
    assert set(rows) == {"torch", "onnxruntime"} and with_core["baseline"] == "torch/core"
    assert with_core["stages"] == [] and "torch" in with_core["peaks"][0]["libraries"]
    for row in rows.values():
        assert row["accuracy"]["reference"] == "the checkpoint in PyTorch"
        assert row["accuracy"]["max_abs_maps"] < 1e-5
        assert 0 <= row["accuracy"]["CAP"] <= 100 and "CIoU@0.3" in row["accuracy"]
    assert rows["torch"]["accuracy"]["max_abs_maps"] == 0 and rows["torch"]["speedup"]["p50"] == 1
    # the library alone is an order of magnitude larger than ONNX Runtime
    assert rows["torch"]["memory_mb"]["peak"] > rows["onnxruntime"]["memory_mb"]["peak"]
    lines = "\n".join(format_report(with_core))
    assert "CIoU" in lines and "beside torch/core" in lines


def test_the_report_is_documented_json(report: dict[str, Any], with_core: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text()
    for each in (report, with_core):
        assert json.loads(json.dumps(each, allow_nan=False)) == each
        assert (each["format"], each["version"]) == ("avgn-benchmark", 1)
    for part in (report, *report["rows"], *report["stages"], *report["peaks"], *report["bundles"], report["machine"]):
        for name in part:
            assert f"`{name}`" in text, name
    for row in working(report):
        assert set(row["throughput"]) == SPREAD and set(row["wall_ms"]["pair"]) == SPREAD | {"p95"}


def test_the_table_holds_every_row_and_says_what_it_is_relative_to(report: dict[str, Any]) -> None:
    lines = format_report(report)
    assert report["machine"]["processor"] in lines[0]
    assert sum(line.startswith(("fp32", "-", "core")) for line in lines) == len(report["rows"])
    assert sum("failed: " in line for line in lines) == 2
    assert any("beside onnxruntime/fp32" in line for line in lines)
    assert any("fp32 graphs in ONNX Runtime" in line for line in lines)


def test_a_plot_is_drawn(report: dict[str, Any], tmp_path: Path) -> None:
    plot_report(report, tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None and picture.shape[1] > 1000 and picture.std() > 10


def test_a_process_that_takes_too_long_is_ended() -> None:
    # other tests' helpers may run on
    others = children(os.getpid())
    job = {"kind": "row", "bundle": "tiny", "variant": 0, "backend": "onnxruntime", "threads": 1}
    with pytest.raises(FailureError, match="longer than 0.5 s: raise --timeout"):
        run_job(job | {"batch": 1, "seconds": 100.0, "repeats": None}, timeout=0.5)
    assert set(children(os.getpid())) <= set(others)


def test_a_process_that_dies_is_a_sentence() -> None:
    job = {"kind": "row", "bundle": "tiny", "variant": 0, "backend": "onnxruntime", "threads": 1}

    others = set(children(os.getpid()))

    def kill() -> None:
        while not (found := set(children(os.getpid())) - others):
            time.sleep(0.01)
        os.kill(found.pop(), signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(FailureError, match="the process died of SIGSEGV"):
        run_job(job | {"batch": 1, "seconds": 100.0, "repeats": None}, timeout=60)
    killer.join()


def test_what_lies_in_the_current_folder_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('not this one')")
    (tmp_path / "avgn").mkdir()
    (tmp_path / "avgn" / "__init__.py").write_text("raise ImportError('nor this one')")
    monkeypatch.chdir(tmp_path)
    assert run_job({"kind": "operations", "bundle": "tiny"}, timeout=60)["audio"] > 0


def test_bundles_of_one_name_are_told_apart_in_a_plot() -> None:
    assert short_names({"a/bundle"}) == {"a/bundle": ""}
    assert short_names({"a/one", "b/two"}) == {"a/one": "one", "b/two": "two"}
    assert short_names({"a/bundle", "b/bundle"}) == {"a/bundle": "a/bundle", "b/bundle": "b/bundle"}


def test_a_job_that_fails_says_why() -> None:
    with pytest.raises(FailureError, match="none does not exist"):
        run_job({"kind": "operations", "bundle": "none"}, timeout=60)


def test_a_package_that_operations_need_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError) as raised:
        count_operations({"bundle": "tiny"})
    assert one_sentence(raised.value) == "onnx is not installed: pip install 'avgn[teach]'"


def test_a_row_is_planned_for_every_combination() -> None:
    options = BenchmarkOptions(batches=(1, 4, 4), threads=(1,), backends=("torch", "openvino", "onnxruntime"))
    rows = plan_rows([("tiny", Bundle.load("tiny"))], [CHECKPOINT], options)
    assert [(row.backend, row.precision, row.batch) for row in rows] == [
        (backend, precision, batch)
        for backend, precision in (("torch", "core"), ("openvino", "fp32"), ("onnxruntime", "fp32"))
        for batch in (1, 4)
    ]


def test_checkpoints_are_one_for_all_or_one_for_each() -> None:
    with pytest.raises(InputError, match="2 checkpoints for 1 bundles"):
        run_benchmark(["tiny"], BenchmarkOptions(threads=(1,)), checkpoints=[CHECKPOINT, CHECKPOINT])
