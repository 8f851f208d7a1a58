"""AOTInductor packages on this machine: built, verified against the core, and timed beside the other engines.

python -m benchmarks.gpu_aoti --output FILE.json --work FOLDER [--models tiny resnet18] [--export]

With --export the bundles are written, in minutes; without, those that are there are measured. WORK/tiny is a bundle of
the shipped checkpoint with ONNX graphs and packages, WORK/resnet18 one of packages alone; WORK/cache marks what was
built here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avgn.checkpoint import load_model
from avgn.config import preset
from avgn.engine import TorchEngine, describe
from avgn.export import aoti
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.mixed import to_mixed
from avgn.export.optimize import optimize
from avgn.export.variants import describe_variant
from avgn.machine import measured_on
from avgn.model import LocalizerModel, build_model
from avgn.runtime.bundle import Bundle, write_bundle_info
from avgn.runtime.engines import ENGINES, load_engine, obstacle_of
from avgn.runtime.engines.base import Engine
from avgn.runtime.engines.first_load import compare_engines, probes
from avgn.runtime.engines.trust import trust

CHECKPOINT = "recipes/checkpoint"
BATCHES = (1, 8, 32)
WARM_UP_RUNS, MEASURED_SECONDS = 5, 0.5
# mean cosine between an engine's maps and the core's: fp16 rounds maps of random weights, fp32 none
LEAST_COSINE = {"fp32": 0.9999}
LEAST_COSINE_ROUNDED = 0.99


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=("tiny", "resnet18"), default=["tiny", "resnet18"])
    parser.add_argument("--export", action="store_true", help="write the bundles, and measure nothing")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["AVGN_CACHE"] = str(args.work / "cache")
    if args.export:
        for name in args.models:
            (_write_tiny if name == "tiny" else _write_resnet18)(args.work / name)
        return 0
    record: dict[str, Any] = {"machine": measured_on(), "bundles": {}}
    failed = False
    for name in args.models:
        made: dict[str, Any] = {"rows": []}
        record["bundles"][name] = made
        if not (args.work / name / "bundle.json").is_file():
            made["error"] = "it was not written"
            failed = True
            continue
        core = TorchEngine(load_model(CHECKPOINT) if name == "tiny" else _resnet18())
        for row in _rows(Bundle.load(args.work / name), core):
            made["rows"].append(row)
            failed = failed or not right(row)
            print(json.dumps(row), flush=True)
            args.output.write_text(json.dumps(record, indent=1) + "\n")
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    return int(failed)


def right(row: dict[str, Any]) -> bool:
    """Return whether an engine's maps are the core's, but for rounding."""
    return bool(row["against_core"]["cosine_maps"] >= LEAST_COSINE.get(row["precision"], LEAST_COSINE_ROUNDED))


def _write_tiny(folder: Path) -> None:
    """The shipped checkpoint's bundle: fp32, its ONNX graphs, and packages that were compared with the core."""
    options = ExportOptions(formats=("onnx", "aoti"))
    export_bundle(CHECKPOINT, folder, options, overwrite=True, report=print)


def _write_resnet18(folder: Path) -> None:
    """Packages of the paper's sizes, fp16 on a GPU, with random weights: times don't depend on what was learned."""
    model = _resnet18()
    folder.mkdir(parents=True, exist_ok=True)
    precision = "fp16" if torch.cuda.is_available() else "fp32"
    optimized = optimize(model, front_end="framed" if torch.cuda.is_available() else "folded")
    files = aoti.build_packages(
        to_mixed(optimized) if precision == "fp16" else optimized, folder, f".{precision}", print
    )
    info = replace(describe(model), provenance={"torch": torch.__version__})
    dim = model.config.source_dim
    variant = describe_variant(info, dim, files, precision=precision, engine="aoti", target=aoti.target())
    trust([variant])
    write_bundle_info(folder, replace(info, variants=(variant,)))


def _resnet18() -> LocalizerModel:
    torch.manual_seed(0)
    return build_model(preset("avgn-resnet18", classes=tuple(f"class {at}" for at in range(37)))).eval()


def _rows(bundle: Bundle, core: Engine) -> list[dict[str, Any]]:
    """One row for each variant and engine that runs it here."""
    rows = []
    for variant in bundle.variants:
        for name, entry in ENGINES.items():
            # CPU engines beside packages for a GPU would say nothing
            beside = entry.gpu or name == "aoti" or not torch.cuda.is_available()
            if variant.engine in entry.reads and beside and obstacle_of(name, bundle, variant) is None:
                begin = time.perf_counter()
                engine = load_engine(bundle, variant, name)
                facts = {"engine": name, "precision": variant.precision, "target": variant.target}
                loaded = {"load_seconds": round(time.perf_counter() - begin, 2)}
                compared = {"against_core": compare_engines(engine, core)}
                rows.append(facts | loaded | compared | {"call_ms": _times(engine)})
    return rows


def _times(engine: Engine) -> dict[str, dict[str, float]]:
    """Milliseconds of a call of each half with numpy in and out, p50 and p80, by batch."""
    waveform, image = probes(engine.info)
    found: dict[str, dict[str, float]] = {}
    for batch in BATCHES:
        heard, seen = (np.resize(value, (batch, *value.shape[1:])) for value in (waveform, image))
        sources = engine.run_audio(heard)["sources"]
        calls: dict[str, Callable[[], object]] = {
            "audio": lambda heard=heard: engine.run_audio(heard),  # type: ignore[misc]
            "image": lambda seen=seen, sources=sources: engine.run_image(seen, sources),  # type: ignore[misc]
        }
        for half, call in calls.items():
            p50, p80 = np.percentile(_seconds(call), (50, 80))
            found[f"{half}, batch {batch}"] = {"p50": round(1e3 * p50, 4), "p80": round(1e3 * p80, 4)}
    return found


def _seconds(call: Callable[[], object]) -> list[float]:
    for _ in range(WARM_UP_RUNS):
        call()
    taken: list[float] = []
    end = time.perf_counter() + MEASURED_SECONDS
    while len(taken) < WARM_UP_RUNS or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


if __name__ == "__main__":
    sys.exit(main())
