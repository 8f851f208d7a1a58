"""Measures everything that needs a GPU, in one record: kernels, a training step, engines built, verified and timed.

python -m benchmarks.gpu --output benchmarks/results/gpu.json [--minutes 8] [--only training,aoti] [--dry-run]

What compiles and tests runs first, all at once; then what is timed, step by step in the order of its worth. Each step
is a process of its own with a limit of its own, and the record is written after each of them: whatever ends the run
leaves what was measured. A step whose library is not installed is skipped, and the record says why; a step that fails
is written down with what it said, and the next one goes on. Nothing needs the network. Exit status: 0 when all that ran
passed, 1 when something that ran failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from avgn.machine import machine as describe
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from benchmarks.gpu_steps import ROOT, Step, plan, run_step, stop_all

PACKAGES = (
    "torch",
    "triton",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "onnx",
    "lightning",
)
MINUTES = 8.0
# less than this is no use to any step, in seconds
LEAST_SECONDS = 5.0
# of the whole record, and of one step's result in it, in bytes
MOST_RECORD_BYTES, MOST_RESULT_BYTES = 1_000_000, 120_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder of what is built on the way")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all steps together")
    parser.add_argument("--only", default="", help="comma-separated beginnings of the names of steps")
    parser.add_argument("--dry-run", action="store_true", help="list the steps and their limits, run nothing")
    args = parser.parse_args()
    # every step runs in the repository's root
    args.work, args.output = args.work.resolve(), args.output.resolve()
    try:
        steps = choose(plan(args.work), args.only)
        if args.dry_run:
            print("\n".join(listing(steps, args.minutes)))
            return 0
        gpu = find_gpu()
        if isinstance(gpu, str):
            raise InputError(
                f"the checks of make gpu need an NVIDIA GPU and {gpu}: run them where there is one, "
                "or make test for what a CPU can show"
            )
        _check_folders(args.work, args.output.parent)
        machine = {"gpu": gpu.name, "target": gpu.target, "driver": _driver()}
        record = run_steps(steps, args.minutes, machine, args.output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if record["failed"]:
        print(f"error: {', '.join(record['failed'])} failed: {args.output} says how", file=sys.stderr)
        return 1
    return 0


def choose(steps: Sequence[Step], only: str) -> list[Step]:
    """Return the steps whose names begin with one of `only`, all without it. Raises InputError for a word with which no
    step begins."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if not any(step.name.startswith(name) for step in steps):
            names = ", ".join(step.name for step in steps)
            raise InputError(f"--only {name}: no step begins so, choose among these: {names}")
    return [step for step in steps if not wanted or any(step.name.startswith(name) for name in wanted)]


def listing(steps: Sequence[Step], minutes: float) -> list[str]:
    """Format the steps for people: the limit of each, and why it would be skipped here."""
    lines = [f"{'step':32}{'limit s':>8}  {'here':8}"]
    for step in steps:
        reason = step.obstacle()
        how = "runs beside others" if step.beside else "runs"
        lines.append(f"{step.name:32}{step.seconds:8.0f}  {how if reason is None else f'skipped: {reason}'}")
    ready = [step for step in steps if step.obstacle() is None]
    running = sum(step.seconds for step in ready if not step.beside)
    running += max((step.seconds for step in ready if step.beside), default=0.0)
    lines.append(f"{'limits of those that run here':32}{running:8.0f}  of --minutes {minutes:g} ({60 * minutes:.0f} s)")
    return lines


def run_steps(steps: Sequence[Step], minutes: float, machine: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Run the steps within `minutes`: those that may run beside others all at once, then the rest one after the other.

    Returns the record, which `output` holds after every step.
    """
    end = time.monotonic() + 60 * minutes
    rows: dict[str, dict[str, Any]] = {}

    def keep(row: dict[str, Any]) -> dict[str, Any]:
        rows[row["step"]] = row
        print(f"{row['step']}: {row['outcome']}" + (f" ({row['why']})" if row["why"] else ""), flush=True)
        record = merge(machine, [rows[step.name] for step in steps if step.name in rows])
        write_whole(output, fit(record))
        return record

    record = merge(machine, [])
    together = [step for step in steps if step.beside]
    with ThreadPoolExecutor(max(1, len(together))) as pool:
        try:
            for done in as_completed([pool.submit(_row, step, end, minutes) for step in together]):
                record = keep(done.result())
        except BaseException:
            # the pool waits for its threads, and they for their processes
            stop_all()
            raise
    for step in steps:
        if not step.beside:
            record = keep(_row(step, end, minutes))
    return record


def _row(step: Step, end: float, minutes: float) -> dict[str, Any]:
    """Run a step until `end` at most, or say why it is skipped or left out."""
    left = end - time.monotonic()
    row: dict[str, Any] = {"step": step.name, "seconds": 0.0}
    if (reason := step.obstacle()) is not None:
        return row | {"outcome": "skipped", "why": reason}
    if left < LEAST_SECONDS:
        return row | {"outcome": "left out", "why": f"--minutes {minutes:g} are over"}
    print(f"{step.name} ...", flush=True)
    return run_step(step, left)


def merge(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge all steps into one record: a summary first, then the machine, versions, commit, and the rows by name."""
    return {
        "summary": {
            row["step"]: f"{row['outcome']} in {row['seconds']:g} s" + (f": {row['why']}" if row["why"] else "")
            for row in rows
        },
        "failed": [row["step"] for row in rows if row["outcome"] == "failed"],
        "machine": describe() | dict(machine),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": os.environ.get("AVGN_REVISION") or _said("git", "rev-parse", "HEAD"),
        "steps": {row["step"]: {name: value for name, value in row.items() if name != "step"} for row in rows},
    }


def fit(record: Mapping[str, Any]) -> str:
    """Format the record as JSON of at most MOST_RECORD_BYTES: of results that are too large, only the size stays."""
    steps = {name: dict(row) for name, row in record["steps"].items()}
    for row in steps.values():
        size = len(json.dumps(row.get("result")))
        if size > MOST_RESULT_BYTES:
            row["result"] = f"{size} bytes, left out"
    text = json.dumps({**record, "steps": steps}, indent=1) + "\n"
    for row in sorted(steps.values(), key=lambda row: -len(json.dumps(row.get("result")))):
        if len(text) <= MOST_RECORD_BYTES:
            break
        row["result"] = "left out: the record would be too large"
        text = json.dumps({**record, "steps": steps}, indent=1) + "\n"
    return text


def _check_folders(*folders: Path) -> None:
    """Make the folders, or raise InputError: minutes of measuring must not end in one that can't be written."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"folder {folder} can't be made ({error.strerror}): give another one") from None
        if not os.access(folder, os.W_OK):
            raise InputError(f"folder {folder} can't be written: give another one")


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
