"""Measures a lesson on the page of `avgn serve --teach`, and what it costs another visitor of the server.

python -m benchmarks.lessons --output benchmarks/results/lessons.json [--lessons 3]

A visitor holds the button for two seconds before the demo's dog, whose class was taken out of `world`, names it at
once, and goes on sending; another one sends pictures at 15 a second all the time. Seconds are from the button's release
to the offered region, and from the name to the engine that everybody has and to the first result that names the class.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from avgn.machine import measured_on
from avgn.runtime import Localizer
from avgn.runtime.bundle import Bundle
from avgn.teach.classroom import Classroom
from tests.web.browser import serving
from tests.web.lessons import TeachingVisitor, teaching, without_dog
from tests.web.visits import Visitor

BOX = [0.63, 0.0, 0.95, 0.6]
QUIET = 150


def give(visitor: TeachingVisitor) -> dict[str, float]:
    """Teach the dog, wait until it is named, and take it back."""
    visitor.say("teach-begin")
    visitor.until("lesson", state="recording")
    visitor.show(2.0)
    released = time.monotonic()
    visitor.say("teach-end")
    visitor.until("lesson", state="looked")
    named = time.monotonic()
    visitor.say("teach", name="Rex", box=BOX)
    visitor.until("lesson", state="learnt")
    learnt = time.monotonic()
    while True:
        visitor.show(0.1)
        if any(source["label"] == "Rex" for source in visitor.until("result")["sources"]):
            break
    seen = time.monotonic()
    visitor.say("teach-forget", name="Rex")
    visitor.until("lesson", state="forgotten")
    return {"region": named - released, "learnt": learnt - named, "named": seen - named, "begin": released, "end": seen}


def gaps(visitor: Visitor, begin: float, end: float) -> dict[str, float]:
    """How regularly a visitor got results between two moments."""
    times = [at for at, _ in visitor.results if begin <= at <= end]
    steps = 1000 * np.diff(times)
    return {
        "results_per_second": round(len(times) / (end - begin), 1),
        "median_gap_ms": round(float(np.median(steps)), 1),
        "p95_gap_ms": round(float(np.quantile(steps, 0.95)), 1),
        "longest_gap_ms": round(float(steps.max()), 1),
    }


def measure(lessons: int, folder: Path) -> dict[str, Any]:
    """Return what lessons took, and what the other visitor got meanwhile and before."""

    def load(bundle: Bundle) -> Localizer:
        return Localizer.load(bundle)

    localizer = load(without_dog(folder))
    rows: list[dict[str, Any]] = []
    with (
        Classroom(localizer, load) as room,
        serving(localizer, teacher=room) as url,
        Visitor(url) as other,
        teaching(url) as visitor,
    ):
        other.wait(QUIET)
        begin = time.monotonic()
        other.wait(QUIET)
        quiet = gaps(other, begin, time.monotonic())
        for _ in range(lessons):
            took = give(visitor)
            meanwhile = gaps(other, took.pop("begin"), took.pop("end"))
            rows.append({f"{name}_seconds": round(value, 2) for name, value in took.items()} | {"other": meanwhile})
    return {"engine": localizer.engine.name, "before": quiet, "lessons": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lessons", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = {"machine": measured_on(), **measure(args.lessons, Path(folder))}
    text = json.dumps(record, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
