"""Measures the fused kernels on this GPU beside plain, naive and compiled forms, and nothing that a CPU could measure.

python -m benchmarks.gpu_kernels --output FILE.json [--seconds 80] [--compile]

With --compile the compilers' caches are filled, all shapes at once; what is measured without it takes minutes longer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from avgn.machine import measured_on
from benchmarks.kernels.gpu import SHAPES, compare_goals, measure_shape, prepare_shape


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=80.0, help="no shape begins after so many")
    parser.add_argument("--compile", action="store_true", help="fill the compilers' caches, and measure nothing")
    args = parser.parse_args()
    if args.compile:
        _compile_together()
        return 0
    end = time.perf_counter() + args.seconds
    rows: list[dict[str, Any]] = []
    record: dict[str, Any] = {"machine": measured_on(), "goals": [], "rows": rows}
    failed = False
    for shape in SHAPES:
        if time.perf_counter() > end:
            rows.append({"shape": shape, "left_out": f"the {args.seconds:g} s are over"})
        else:
            try:
                rows.append(measure_shape(shape))
            except Exception as error:  # a shape whose result is wrong leaves the others to be measured
                failed = True
                rows.append({"shape": shape, "error": f"{type(error).__name__}: {error}"[:500]})
                print(rows[-1]["error"], file=sys.stderr, flush=True)
        record["goals"] = compare_goals(rows)
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    return int(failed)


def _compile_together() -> None:
    """Fill the compilers' caches, a process a shape: one after the other they take minutes."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=prepare_shape, args=(shape,)) for shape in SHAPES]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    sys.exit(main())
