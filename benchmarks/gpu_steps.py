"""Lists and runs the steps of `make gpu`: what each runs, what it needs and how long it may take."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from avgn.runtime.engines import ENGINES
from avgn.runtime.engines.gpu import find_gpu

ROOT = Path(__file__).resolve().parents[1]
SAID_LINES = 12
COMPILES = ("lightning", "triton")
HOST_TIME = "tests/kernels/test_gpu.py::test_a_call_costs_the_host_little"
# of each step that runs beside others: as many of PyTorch's compilers as there are cores would each import it first
BESIDE = {"TORCHINDUCTOR_COMPILE_THREADS": "4"}
# TensorRT for RTX builds for these no engine
NOT_RTX = ("sm_90", "sm_100")
# process groups of the steps that run now
_running: set[int] = set()


@dataclass(frozen=True, kw_only=True)
class Step:
    """Describes a command that is run from the repository's root for at most `seconds`.

    `result` is a JSON file that it writes, `report` one of pytest's. `needs` are modules that must be there, `unless`
    says what else prevents it, and `after` is a file that an earlier step leaves. Nothing of a step that runs `beside`
    others is timed: those compile and test, all at once, before the first of the rest begins.
    """

    name: str
    command: Sequence[str]
    seconds: float
    result: Path | None = None
    report: Path | None = None
    needs: Sequence[str] = ()
    unless: Callable[[], str | None] = lambda: None
    after: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: bool = False

    def obstacle(self) -> str | None:
        """Return why the step can't run here, or None."""
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        return self.unless()


def plan(work: Path) -> list[Step]:
    """Return the steps: those that run beside others, then the rest in the order of its worth.

    `work` takes their files.
    """
    python = (sys.executable, "-m")
    aoti = work / "aoti"
    bundle = aoti / "tiny"
    steps = [
        _tests(
            "kernel tests",
            "tests/kernels/test_gpu.py",
            work / "kernel-tests.xml",
            110,
            ("pytest", "triton"),
            beside=True,
        ),
        *(
            _measured(
                f"aoti: build {name}",
                "gpu_aoti",
                work,
                150,
                ("onnx", "onnxscript"),
                *("--work", str(aoti), "--export", "--models", name),
                beside=True,
            )
            for name in ("tiny", "resnet18")
        ),
        _measured("training step: compile", "training_gpu", work, 110, COMPILES, "--changes", "compiled", beside=True),
        _measured("kernel times: compile", "gpu_kernels", work, 110, ("triton",), "--compile", beside=True),
        _tests("host time of a kernel", HOST_TIME, work / "host-time.xml", 40, ("pytest", "triton")),
        _measured("kernel times", "gpu_kernels", work, 90, ("triton",)),
        _measured("training step", "training_gpu", work, 80, COMPILES, "--seconds", "60"),
        _measured("aoti: verify, time", "gpu_aoti", work, 60, ("onnx",), "--work", str(aoti)),
        _tests(
            "aoti: contract",
            "tests/runtime/test_engine_contract.py",
            work / "aoti-contract.xml",
            50,
            ("pytest", "onnxruntime"),
            {"AVGN_GPU_BUNDLE": str(bundle), "AVGN_CACHE": str(aoti / "cache")},
            bundle / "bundle.json",
        ),
        _measured(
            "train and evaluate",
            "gpu_train",
            work,
            60,
            ("lightning", "cv2", "safetensors", "tensorboard"),
            "--work",
            str(work),
        ),
        *_engines("onnxruntime-cuda", "onnx", work, python),
        *_engines("tensorrt", "tensorrt", work, python),
        *_engines("tensorrt-rtx", "tensorrt-rtx", work, python),
    ]
    return sorted(steps, key=lambda step: not step.beside)


def _engines(name: str, format: str, work: Path, python: tuple[str, ...]) -> list[Step]:
    """Build a bundle for an engine, verify it, hold it to the contract and time it."""
    bundle, checkpoint = work / name, "recipes/checkpoint"
    entry = ENGINES[name]

    def unless() -> str | None:
        gpu = find_gpu()
        if name == "tensorrt-rtx" and not isinstance(gpu, str) and gpu.target in NOT_RTX:
            return f"TensorRT for RTX builds no engine for {gpu.target}"
        return entry.obstacle()

    formats = "onnx" if format == "onnx" else f"onnx,{format}"
    needs = (entry.requires, "jsonargparse", "onnx", "onnxscript")
    common: dict[str, Any] = {"needs": needs, "unless": unless}
    done = bundle / "bundle.json"
    speed, verified = work / f"{name}-speed.json", work / f"{name}-verify.json"
    return [
        Step(
            name=f"{name}: build",
            command=(*python, "avgn", "export", checkpoint, str(bundle), "--overwrite")
            + ("--precision", "fp32,fp16", "--format", formats),
            seconds=240,
            # TensorRT times what it builds
            beside=format == "onnx",
            **common,
        ),
        Step(
            name=f"{name}: verify",
            command=(*python, "avgn", "verify", str(bundle), "--checkpoint", checkpoint, "--json", str(verified)),
            result=verified,
            seconds=90,
            after=done,
            **common,
        ),
        _tests(
            f"{name}: contract",
            "tests/runtime/test_engine_contract.py",
            work / f"{name}-contract.xml",
            90,
            (*needs, "pytest"),
            {"AVGN_GPU_BUNDLE": str(bundle)},
            done,
            unless,
        ),
        Step(
            name=f"{name}: latency and throughput",
            command=(*python, "avgn", "benchmark", str(bundle), "--backends", name, "--rounds", "2", "--seconds", "0.5")
            + ("--json", str(speed)),
            result=speed,
            seconds=90,
            after=done,
            **common,
        ),
    ]


def _measured(
    name: str, module: str, work: Path, seconds: float, needs: Sequence[str], *options: str, beside: bool = False
) -> Step:
    """Make a step that runs a module of this package, whose record is kept but for one that runs `beside` others."""
    result = work / f"{module}.json"
    command = (
        sys.executable,
        "-m",
        f"benchmarks.{module}",
        "--output",
        os.devnull if beside else str(result),
        *options,
    )
    return Step(
        name=name,
        command=command,
        result=None if beside else result,
        seconds=seconds,
        needs=("torch", *needs),
        environment=BESIDE if beside else {},
        beside=beside,
    )


def _tests(
    name: str,
    file: str,
    report: Path,
    seconds: float,
    needs: Sequence[str],
    environment: Mapping[str, str] | None = None,
    after: Path | None = None,
    unless: Callable[[], str | None] = lambda: None,
    beside: bool = False,
) -> Step:
    """Make a step that runs a test file with pytest and writes its `report` as JUnit XML; see `Step` for the rest."""
    # the compiler takes most of the time
    together = ("-n", str(min(8, os.cpu_count() or 1))) if importlib.util.find_spec("xdist") else ()
    left_out = ("--deselect", HOST_TIME) if beside else ()
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *together, *left_out, file)
    command += (f"--junit-xml={report}",)
    return Step(
        name=name,
        command=command,
        report=report,
        seconds=seconds,
        needs=needs,
        environment=environment or {},
        after=after,
        unless=unless,
        beside=beside,
    )


def run_step(step: Step, left: float = float("inf")) -> dict[str, Any]:
    """Run one step, for at most its limit and the `left` seconds, and return its row.

    Keys: "outcome" (passed, failed, left out), "why" (None when it passed), "seconds", the end of what it "said", and
    its "result" and "tests".
    """
    row: dict[str, Any] = {
        "step": step.name,
        "command": " ".join(("python", *step.command[1:])).replace(str(ROOT), "."),
    }
    if step.after is not None and not step.after.is_file():
        return row | {"outcome": "left out", "why": "the step that makes its bundle did not", "seconds": 0.0}
    for file in (step.result, step.report):
        if file is not None:
            # what an earlier run left is not this one's
            file.unlink(missing_ok=True)
    begin = time.monotonic()
    said, why = _run(step, min(step.seconds, left))
    row |= {"outcome": "passed", "why": why, "seconds": round(time.monotonic() - begin, 1)}
    if step.report is not None:
        row["tests"] = _tally(step.report)
        if why is None and row["tests"]["passed"] == 0:
            row["why"] = "no test ran"
    if step.result is not None:
        try:
            row["result"] = json.loads(step.result.read_text())
        except (OSError, ValueError):
            row["why"] = why or f"{step.result.name} was not written"
    if row["why"]:
        row["outcome"] = "failed"
        row["said"] = [line.replace(str(ROOT), ".")[:400] for line in said.splitlines()[-SAID_LINES:]]
    return row


def _run(step: Step, limit: float) -> tuple[str, str | None]:
    """Run a step's process; return what it printed and how it failed. None of its processes outlives the call."""
    try:
        child = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env={**os.environ, **step.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return "", f"did not start: {error.strerror}"
    _running.add(child.pid)
    try:
        said, _ = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        said, _ = child.communicate()
        return said, f"stopped after {limit:.3g} s"
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        _running.discard(child.pid)
    return said, f"exit status {child.returncode}" if child.returncode else None


def stop_all() -> None:
    """End every process of the steps that are running."""
    for pid in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _tally(report: Path) -> dict[str, Any]:
    """Count pytest's report: passed, failed and skipped tests, with the failures and the reasons for skipping."""
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "reasons": [], "failures": []}
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return counts
    for case in cases:
        skipped, broken = case.find("skipped"), case.find("failure")
        broken = case.find("error") if broken is None else broken
        if skipped is not None:
            counts["skipped"] += 1
            counts["reasons"].append(skipped.get("message", ""))
        elif broken is not None:
            counts["failed"] += 1
            counts["failures"].append(f"{case.get('name')}: {' '.join(broken.get('message', '').split())[:200]}")
        else:
            counts["passed"] += 1
    counts["reasons"] = sorted(set(counts["reasons"]))
    return counts
