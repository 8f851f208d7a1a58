"""Everything that needs a GPU, in one record: kernel tests, engines built and verified, the contract, times.

python -m benchmarks.gpu --output benchmarks/results/gpu.json [--work runs/gpu]

A step that fails is written down with what it said, and the next one goes on. Without a GPU nothing starts (exit 2).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from avgn.runtime.engines.gpu import find_gpu

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = "benchmarks/checkpoints/tiny"
# formats that hold engines, and the engines that run their bundles; ONNX Runtime's read the graphs beside them
FORMATS = {"tensorrt": "tensorrt,onnxruntime-cuda,onnxruntime-tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
PACKAGES = ("torch", "triton", "onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-rtx", "cuda-bindings", "onnx")
LINES = 12


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, run from the repository's root. `result` is a JSON file that it writes, `report` one of pytest's."""

    name: str
    command: Sequence[str]
    result: Path | None = None
    report: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 3600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder of what is built on the way")
    args = parser.parse_args()
    gpu = find_gpu()
    if isinstance(gpu, str):
        print(
            f"error: the checks of make gpu need an NVIDIA GPU and {gpu}: run them where there is one, "
            "or make test for what a CPU can show",
            file=sys.stderr,
        )
        return 2
    # every step runs in the repository's root
    args.work, args.output = args.work.resolve(), args.output.resolve()
    # hours of measuring must not end in a folder that can't be written
    for folder in (args.work, args.output.parent):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            print(f"error: folder {folder} can't be written: give another one", file=sys.stderr)
            return 2
    # scenes are rendered into a new folder alone
    shutil.rmtree(args.work / "scenes", ignore_errors=True)
    record = merge({"gpu": gpu.name, "target": gpu.target, "driver": _driver()}, run_steps(plan(args.work)))
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    if record["failed"]:
        print(f"error: {', '.join(record['failed'])} failed: {args.output} says how", file=sys.stderr)
        return 1
    return 0


def plan(work: Path) -> list[Step]:
    """The steps; `work` takes their files."""
    python = (sys.executable, "-m")
    scenes = work / "scenes"
    steps = [
        _tests("kernel tests", "tests/kernels/test_gpu.py", work / "kernel-tests.xml"),
        Step(
            name="scenes for int8",
            command=(*python, "avgn", "synthesize", str(scenes), "--scenes", "96", "--seed", "5"),
        ),
    ]
    for format, backends in FORMATS.items():
        bundle = work / format
        steps += [
            Step(
                name=f"{format}: build",
                command=(*python, "avgn", "export", CHECKPOINT, str(bundle), "--overwrite")
                + ("--precision", "fp32,fp16,int8-gpu", "--format", f"onnx,{format}")
                # what int8 costs is measured by verify, and is no reason to have no engine at all
                + ("--calibration", str(scenes / "manifest.jsonl"), "--max-drop", "100"),
            ),
            Step(
                name=f"{format}: verify",
                command=(*python, "avgn", "verify", str(bundle), "--checkpoint", CHECKPOINT)
                + ("--manifest", str(scenes / "manifest.jsonl"), "--json", str(work / f"{format}-verify.json")),
                result=work / f"{format}-verify.json",
            ),
            _tests(
                f"{format}: contract",
                "tests/runtime/test_engine_contract.py",
                work / f"{format}-contract.xml",
                {"AVGN_GPU_BUNDLE": str(bundle)},
            ),
            Step(
                name=f"{format}: latency and throughput",
                command=(*python, "avgn", "benchmark", str(bundle), "--backends", backends)
                + ("--json", str(work / f"{format}-speed.json")),
                result=work / f"{format}-speed.json",
            ),
        ]
    times = work / "kernels.json"
    steps.append(
        Step(name="kernel times", command=(*python, "benchmarks.kernels", "--output", str(times)), result=times)
    )
    return steps


def _tests(name: str, file: str, report: Path, environment: Mapping[str, str] | None = None) -> Step:
    command = (sys.executable, "-m", "pytest", "-q", file, f"--junit-xml={report}")
    return Step(name=name, command=command, report=report, environment=environment or {})


def run_steps(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Run the steps one after the other; one row each, whatever becomes of it."""
    rows = []
    for step in steps:
        print(f"{step.name} ...", flush=True)
        rows.append(run_step(step))
        print(f"{step.name}: {rows[-1]['failure'] or 'passed'}", flush=True)
    return rows


def run_step(step: Step) -> dict[str, Any]:
    """One step's row: "seconds", "failure" (None when it passed), the end of what it "said", "result" and "tests"."""
    for file in (step.result, step.report):
        if file is not None:
            # what an earlier run left is not this one's
            file.unlink(missing_ok=True)
    begin = time.monotonic()
    failure, said = None, ""
    try:
        done = subprocess.run(
            step.command,
            cwd=ROOT,
            env={**os.environ, **step.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=step.seconds,
        )
        said = done.stdout
        failure = f"exit status {done.returncode}" if done.returncode else None
    except subprocess.TimeoutExpired:
        failure = f"stopped after {step.seconds:g} s"
    except OSError as error:
        failure = f"did not start: {error.strerror}"
    row: dict[str, Any] = {
        "step": step.name,
        "command": " ".join(("python", *step.command[1:])),
        "seconds": round(time.monotonic() - begin, 1),
        "failure": failure,
    }
    if step.report is not None:
        row["tests"] = _tally(step.report)
        if failure is None and row["tests"]["passed"] == 0:
            row["failure"] = "no test ran"
    if step.result is not None:
        try:
            row["result"] = json.loads(step.result.read_text())
        except (OSError, ValueError):
            row["failure"] = failure or f"{step.result.name} was not written"
    if row["failure"]:
        row["said"] = [line.replace(str(ROOT), ".") for line in said.splitlines()[-LINES:]]
    return row


def _tally(report: Path) -> dict[str, Any]:
    """Counts of pytest's report, and why tests were skipped."""
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "reasons": []}
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return counts
    for case in cases:
        skipped = case.find("skipped")
        if skipped is not None:
            counts["skipped"] += 1
            counts["reasons"].append(skipped.get("message", ""))
        elif case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        else:
            counts["passed"] += 1
    counts["reasons"] = sorted(set(counts["reasons"]))
    return counts


def merge(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of all steps: the machine, versions, commit, which steps failed, and their rows by name."""
    return {
        "machine": {**machine, "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _said("git", "rev-parse", "HEAD"),
        "failed": [row["step"] for row in rows if row["failure"]],
        "steps": {row["step"]: {name: value for name, value in row.items() if name != "step"} for row in rows},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    return _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
