"""python -m benchmarks.kernels [--output benchmarks/results/kernels.json] [--chips 80,90] [--plot FILE.png]"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from avgn.machine import measured_on
from benchmarks.kernels.measure import measure_all
from benchmarks.kernels.resources import CHIPS, Shape, resources
from benchmarks.kernels.roofline import roofline

SHAPES = (Shape(), Shape(p=784, c=221))
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Resources, bytes and times of the fused kernels.")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--chips", default=",".join(str(chip) for chip in CHIPS))
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    record: dict[str, Any] = {
        "machine": measured_on(),
        "resources": [
            row
            for chip in map(int, args.chips.split(","))
            for dtype in DTYPES
            for shape in SHAPES
            for row in resources(chip, dtype, shape)
        ],
        "predicted_roofline": roofline(),
        "cpu": measure_all(),
    }
    if torch.cuda.is_available():
        from benchmarks.kernels.gpu import measure_gpu

        record["gpu"] = {"device": torch.cuda.get_device_name(), "rows": measure_gpu()}
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    _print(record)
    if args.plot:
        _plot(record["cpu"], args.plot)


def _print(record: dict[str, Any]) -> None:
    for row in record["resources"]:
        counts = " ".join(f"{name} {count}" for name, count in row["instructions"].items() if count)
        shape = "P{P} C{C} D{D}".format(**row["shape"])
        print(
            f"{row['chip']:7}{row['dtype']:5}{shape:16}{row['kernel']:38}registers {row['registers']:3} "
            f"stack {row['stack_bytes']:5} shared {row['shared_bytes']:6} of {row['shared_limit_bytes']}  {counts}"
        )
    for form, cost in record["cpu"]["forms"].items():
        print(f"cpu {form:8} {cost['p50']:.2f} s, {cost['peak_bytes'] / 2**20:.0f} MiB above the inputs")
    for row in record.get("gpu", {}).get("rows", ()):
        for form in ("fused", "plain", "naive", "compiled"):
            times = {kind: taken for kind, taken in row.get(form, {}).items() if kind in ("forward_us", "both_us")}
            if times:
                said = ", ".join(f"{kind} {taken:.1f}" for kind, taken in times.items())
                print(f"gpu {row['operation']:10}{row['shape']!s:26}{form:9}{said}")


def _plot(cpu: dict[str, Any], path: Path) -> None:
    """Draw bars of time and memory of the forms with OpenCV."""
    import cv2
    import numpy as np

    canvas = np.full((60 + 60 * len(cpu["forms"]), 900, 3), 255, np.uint8)
    highest = {name: max(cost[name] for cost in cpu["forms"].values()) for name in ("p50", "peak_bytes")}
    for column, (name, unit) in enumerate((("p50", "s"), ("peak_bytes", "MiB"))):
        left = 110 + 400 * column
        for row, (form, cost) in enumerate(cpu["forms"].items()):
            top = 50 + 60 * row
            length = int(280 * cost[name] / highest[name])
            cv2.rectangle(canvas, (left, top), (left + max(1, length), top + 36), (180, 110, 40), -1)
            value = cost[name] if name == "p50" else cost[name] / 2**20
            text = f"{value:.2f} {unit}" if name == "p50" else f"{value:.0f} {unit}"
            cv2.putText(canvas, text, (left + length + 6, top + 25), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
            if column == 0:
                cv2.putText(canvas, form, (10, top + 25), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1)
    shape = cpu["shape"]
    title = "max-pooled cosine, forward and backward: " + " ".join(f"{k}={v}" for k, v in shape.items())
    cv2.putText(canvas, title, (10, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), canvas):
        raise SystemExit(f"plot {path} can't be written: give a .png in a folder that is writable")


if __name__ == "__main__":
    main()
