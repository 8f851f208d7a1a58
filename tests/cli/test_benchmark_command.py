"""avgn benchmark as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avgn.checkpoint import save_model
from avgn.runtime.bundle import Bundle, resolve_bundle_path
from tests.commands import ENVIRONMENT, avgn, refused
from tests.export.models import small_model
from tests.patience import until
from tests.processes import children, is_running

FAST = ("--batch", 1, "--threads", 1, "--rounds", 1, "--repeats", 3, "--video-seconds", 0)


def with_libraries(folder: Path, **sources: str) -> dict[str, str]:
    """An environment where libraries of these names come first and do as they are written."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return ENVIRONMENT | {"PYTHONPATH": f"{folder}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}


def test_a_library_that_crashes_or_is_missing_is_a_row(tmp_path: Path) -> None:
    environment = with_libraries(tmp_path, openvino="import os; os.abort()", torch="raise ImportError('no torch')")
    command = [sys.executable, "-m", "avgn", "benchmark", "tiny", *FAST, "--backends", "onnxruntime,openvino,torch"]
    command += ["--json", tmp_path / "report.json", "--plot", tmp_path / "plot.png"]
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["backend"]: row for row in report["rows"]}
    assert "died of SIGABRT" in rows["openvino"]["failure"] and "SIGABRT" in report["peak_failures"]["openvino"]
    assert rows["onnxruntime"]["failure"] is None and rows["onnxruntime"]["accuracy"]["max_abs_maps"] < 1e-6
    assert "failed: the process died of SIGABRT" in done.stdout and "--checkpoint" in rows["torch"]["failure"]
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_no_row_that_works_is_a_failure(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = avgn("benchmark", "tiny", *FAST, "--backends", "torch", "--json", report)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "no row could be measured" in done.stderr and "failed: " in done.stdout
    assert json.loads(report.read_text())["rows"][0]["failure"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none",), "bundle none does not exist"),
        (("tiny", "--backends", "onnx"), "backend 'onnx' is not known"),
        (("tiny", "--batch", "0"), "--batch must be at least 1, got 0"),
        (("tiny", "--batch", "1,x"), "--batch must be whole numbers"),
        (("tiny", "--batch", ","), "--batch is empty"),
        (("tiny", "--threads", "0"), "got 0"),
        (("tiny", "--threads", "100000"), "got 100000: more threads than cores"),
        (("tiny", "--rounds", "0"), "--rounds must be at least 1"),
        (("tiny", "--seconds", "0"), "--seconds must be above 0"),
        (("tiny", "--seconds", "1", "--repeats", "3"), "give one of them"),
        (("tiny", "--baseline", "openvino", "--backends", "onnxruntime"), "not among the backends"),
        (("tiny", "--baseline", "onnxruntime/int8-cpu"), "no bundle holds such a variant"),
        (("tiny", "--manifest", "none"), "manifest none does not exist"),
        (("tiny", "--json", "none/report.json"), "none/report.json can't be written"),
        (("tiny", "--plot", "report.gif"), "must end with"),
        (("tiny", "--json", "report.png", "--plot", "report.png"), "two outputs are to be written to report.png"),
    ],
    ids=lambda value: " ".join(value[1:]) or "bundle" if isinstance(value, tuple) else "",
)
def test_bad_input(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused("benchmark", *arguments)


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(resolve_bundle_path("tiny"), bundle)
    silent = {"id": "a", "frame": "a.jpg", "audio": "a.wav", "split": "test", "sources": []}
    manifest = tmp_path / "m.jsonl"
    classes = list(Bundle.load(bundle).classes)
    head = {"format": "avgn-manifest", "version": 1, "classes": classes}
    manifest.write_text(f"{json.dumps(head)}\n{json.dumps(silent)}\n")
    for name in ("a.jpg", "a.wav"):
        (tmp_path / name).touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for option, path in (("--json", bundle / "bundle.json"), ("--json", manifest), ("--json", bundle / "audio.onnx")):
        words = refused("benchmark", bundle, "--manifest", manifest, option, path)
        assert f"output {path} is also an input" in words
    words = refused("benchmark", bundle, *FAST, "--manifest", manifest)
    assert f"{manifest} has no source that sounds, is seen and has a box or a mask" in words
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_another_models_checkpoint(tmp_path: Path) -> None:
    other = save_model(small_model(), tmp_path / "c")
    assert "is not the model of bundle" in refused("benchmark", "tiny", "--checkpoint", other)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupt_leaves_no_process(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "avgn", "benchmark", "tiny", "--threads", "1", "--seconds", "600"]
    process = subprocess.Popen(
        [*command, "--backends", "onnxruntime", "--json", str(tmp_path / "r.json")],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    workers: list[int] = []
    try:
        deadline = time.monotonic() + 120
        while not workers and process.poll() is None and time.monotonic() < deadline:
            workers = children(process.pid)
            time.sleep(0.05)
        assert workers
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, errors
    if number != signal.SIGKILL:
        assert errors.strip().splitlines()[-1] == "avgn: interrupted"
    until(lambda: not any(is_running(worker) for worker in workers))
    # nothing runs after a kill -9, so what was to become the report stays, empty, and blocks nobody
    left = [path.stat().st_size for path in tmp_path.glob("r.json.*.partial")]
    assert len(list(tmp_path.iterdir())) == len(left) and left in ([], [0])
    assert number == signal.SIGKILL or not left
