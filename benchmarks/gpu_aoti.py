"""AOTInductor packages on this machine: built, verified against the core, and timed beside the other engines.

python -m benchmarks.gpu_aoti --output FILE.json --work FOLDER [--models tiny resnet18] [--precisions fp32,fp16]

WORK/tiny is a bundle of the shipped checkpoint with ONNX graphs and packages; WORK/cache marks what was built here.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avgn.checkpoint import save_model
from avgn.config import preset
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.model import build_model
from avgn.runtime.bundle import Bundle
from avgn.runtime.engines import ENGINES, load_engine, obstacle_of
from avgn.runtime.engines.base import Engine
from avgn.runtime.engines.first_load import probes
from benchmarks.measuring import machine

CHECKPOINT = "benchmarks/checkpoints/tiny"
BATCHES = (1, 8, 32)
WARM, SECONDS = 5, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=("tiny", "resnet18"), default=["tiny", "resnet18"])
    parser.add_argument("--precisions", default=None, help="default: fp16 on a GPU (tiny: fp32 too), else fp32")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["AVGN_CACHE"] = str(args.work / "cache")
    on_gpu = torch.cuda.is_available()
    record: dict[str, Any] = {"machine": machine(), "bundles": {}}
    if on_gpu:
        record["machine"]["gpu"] = torch.cuda.get_device_name()
    for name in args.models:
        wanted = args.precisions or ("fp32,fp16" if name == "tiny" else "fp16")
        precisions = tuple(wanted.split(",")) if on_gpu else ("fp32",)
        begin = time.perf_counter()
        bundle = export_bundle(
            _checkpoint(name, args.work),
            args.work / name,
            ExportOptions(formats=("onnx", "aoti"), precisions=precisions),
            overwrite=True,
            report=lambda message: print(message, flush=True),
        )
        record["bundles"][name] = {"export seconds": round(time.perf_counter() - begin, 1), "rows": []}
        args.output.write_text(json.dumps(record, indent=1) + "\n")
        for row in _rows(bundle):
            record["bundles"][name]["rows"].append(row)
            print(json.dumps(row), flush=True)
            args.output.write_text(json.dumps(record, indent=1) + "\n")


def _checkpoint(name: str, work: Path) -> Path:
    """The shipped checkpoint, or random weights of the paper's sizes: times don't depend on what was learned."""
    if name == "tiny":
        return Path(CHECKPOINT)
    torch.manual_seed(0)
    model = build_model(preset("avgn-resnet18", classes=tuple(f"class {at}" for at in range(37)))).eval()
    return save_model(model, work / "resnet18-checkpoint")


def _rows(bundle: Bundle) -> list[dict[str, Any]]:
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
                loaded = {"load seconds": round(time.perf_counter() - begin, 2), "verified": variant.verified}
                rows.append(facts | loaded | {"ms a call": _times(engine)})
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
    for _ in range(WARM):
        call()
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < WARM or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


if __name__ == "__main__":
    main()
