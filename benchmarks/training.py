"""Measures samples a second of `avgn train` on the CPU beside a plain loop of the same model, and the loss's memory.

python -m benchmarks.training --output benchmarks/results/training.json [--variants plain avgn contiguous bf16 compile]

The plain loop is what code of a research paper does: contiguous tensors, nothing compiled, the whole similarity tensor
[B,M,N,P], AdamW as it comes. Every variant is a process of its own that reads the same scenes from the same start; they
take turns, step by step, so that a busy machine slows all of them. The first losses of all must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import quantiles
from typing import Any

from avgn.machine import measured_on

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "avgn": {},
    "contiguous": {"channels_last": False},
    "bf16": {"precision": "bf16-mixed"},
    # compiles for minutes before its first step
    "compile": {"compile": True},
}
BATCH = 16
NUM_SCENES = 64
COMPARED_STEPS = 4
LOSS_SHAPES = [(16, 49), (16, 196), (64, 49), (64, 196)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain", "avgn", "contiguous"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=4, help="steps of each variant at each number of threads")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = {
            "machine": measured_on(),
            "preset": "avgn-resnet18",
            "batch": BATCH,
            **_rates(Path(folder), args.variants, args.threads, args.rounds),
            "loss_memory": _memory(),
        }
    print(json.dumps(record, indent=1))
    if args.output:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def _rates(folder: Path, names: list[str], threads: list[int], rounds: int) -> dict[str, Any]:
    from avgn.scenes import SceneConfig, synthesize

    rendered = SceneConfig(split="train", size=(256, 192), seconds=4.0)
    manifest = synthesize(folder / "set", scenes=NUM_SCENES, config=rendered, seed=0, jobs=1)
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    children = {name: _start(name, manifest, folder) for name in names}
    try:
        # the first step starts everything
        for count in [threads[0], *(count for count in threads for _ in range(rounds))]:
            for name, child in children.items():
                assert child.stdin and child.stdout
                child.stdin.write(f"{count}\n")
                child.stdin.flush()
                answer = child.stdout.readline()
                if not answer:
                    raise SystemExit(f"the process of {name} ended: see its message above")
                steps[name].append({"threads": count, **json.loads(answer)})
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    return _summary(steps, threads)


def _summary(steps: dict[str, list[dict[str, Any]]], threads: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "samples_per_second": {},
        "over_plain_wall": {},
        "over_plain_cpu": {},
        "step_cpu_seconds": {},
    }
    measured = {name: rows[1:] for name, rows in steps.items()}
    for count in threads:
        key = str(count)
        of = {name: [row for row in rows if row["threads"] == count] for name, rows in measured.items()}
        found["samples_per_second"][key] = {
            name: _spread([BATCH / row["seconds"] for row in rows]) for name, rows in of.items()
        }
        found["step_cpu_seconds"][key] = {name: _spread([row["cpu"] for row in rows]) for name, rows in of.items()}
        if "plain" in of:
            for kind, value in (("over_plain_wall", "seconds"), ("over_plain_cpu", "cpu")):
                # each turn is compared with the plain loop's of the same round
                found[kind][key] = {
                    name: _spread([one[value] / two[value] for one, two in zip(of["plain"], rows, strict=True)])
                    for name, rows in of.items()
                    if name != "plain"
                }
    first = next(iter(steps))
    # Adam's first steps go by the signs of the gradients: roundings grow from step to step
    found["first_losses_relative_difference"] = {
        name: [float(f"{abs(a['loss'] / b['loss'] - 1):.2g}") for a, b in zip(rows, steps[first], strict=True)][
            :COMPARED_STEPS
        ]
        for name, rows in steps.items()
        if name != first
    }
    found["peak_mb"] = {name: rows[-1]["peak_mb"] for name, rows in steps.items()}
    found["loader_share_of_step"] = {
        name: max(row["loading"] / row["seconds"] for row in rows) for name, rows in measured.items() if name == "plain"
    }
    return found


def _spread(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=10, method="inclusive")
    return {"p20": round(cuts[1], 4), "p50": round(cuts[4], 4), "p80": round(cuts[7], 4)}


def _start(name: str, manifest: Path, folder: Path) -> subprocess.Popen[str]:
    output = folder / name
    # the plain loop's loss is the reference, which stores every similarity
    environment = {"AVGN_KERNELS": "reference" if name == "plain" else ""}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.training_child", name, str(manifest), str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def _memory() -> list[dict[str, Any]]:
    """Measure peak bytes of the loss, forward and backward, above its inputs; and without the inputs' own gradients."""
    found = []
    for batch, cells in LOSS_SHAPES:
        row: dict[str, Any] = {"shape": {"B": batch, "N": 2, "P": cells, "D": 512}}
        for form in ("einsum", "chunked"):
            command = [sys.executable, "-m", "benchmarks.kernels.measure", form, *map(str, row["shape"].values())]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, "AVGN_KERNELS": ""}
            )
            row[f"{form}_peak_mb"] = round(json.loads(done.stdout.splitlines()[-1])["peak_bytes"] / 1e6, 2)
        gradients = 4 * 512 * (batch * cells + 2 * batch * 2) / 1e6
        row["input_gradients_mb"] = round(gradients, 2)
        row["all_similarities_mb"] = round(4 * batch * 2 * batch * cells / 1e6, 2)
        found.append(row)
    return found


if __name__ == "__main__":
    main()
