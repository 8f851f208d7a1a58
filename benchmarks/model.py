"""Both halves of avgn-resnet18 in every CPU engine against eager PyTorch, and how near the processor's limit they come.

python -m benchmarks.model --output benchmarks/results/model.json [--threads 1,2] [--seconds 20] [--cache FOLDER]

The baseline is the core model as research code runs it: `model(waveform, image)` and the maps, batch 1, no_grad, the
same number of threads. All calls take turns; ratios are medians over the turns. `--bundle` measures another bundle, of
the same model, for instance one whose 8-bit layers were searched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avgn.export.verify import render_batch
from avgn.machine import measured_on
from avgn.model import LocalizerModel
from avgn.runtime.bundle import Bundle
from avgn.runtime.contract import HALVES
from avgn.runtime.engines import load_engine
from benchmarks.bundles import bundle_folder, quick_bundle, random_model
from benchmarks.measuring import Turns

MODEL, NUM_CLASSES = "avgn-resnet18", 37
ENGINES = ("onnxruntime", "openvino")
EAGER = ("eager, both halves",)
# sides of the square products whose best is the peak
SIDES = (1024, 2048)
FRAME_RATE, HOP_SECONDS = 30.0, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", default=",".join(str(n) for n in (1, 2) if n <= (os.cpu_count() or 1)))
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring for each number of threads")
    parser.add_argument("--cache", type=Path, help="folder that keeps the exported bundle")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = bundle_folder(args.cache)
    bundle = args.bundle or folder / MODEL
    if args.child:
        torch.set_num_threads(args.child)
        found = measure(random_model(MODEL, NUM_CLASSES), Bundle.load(bundle), args.child, args.seconds)
        args.output.write_text(json.dumps(found))
        return
    if args.bundle is None:
        quick_bundle(random_model(MODEL, NUM_CLASSES), bundle)
    record: dict[str, Any] = {
        "machine": measured_on(),
        "model": MODEL,
        "classes": NUM_CLASSES,
        "weights": "random",
        "batch": 1,
        "stream_fps": FRAME_RATE,
        "audio_hop_seconds": HOP_SECONDS,
        "threads": {},
    }
    for threads in args.threads.split(","):
        # a process each: PyTorch does not give back the threads that it started
        part = folder / f"threads-{threads}.json"
        options = ["--child", threads, "--bundle", str(bundle), "--seconds", str(args.seconds), "--output", str(part)]
        limits = {name: threads for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        subprocess.run([sys.executable, "-m", "benchmarks.model", *options], check=True, env=os.environ | limits)
        record["threads"][threads] = json.loads(part.read_text())
    if args.cache is None:
        shutil.rmtree(folder)
    print(json.dumps(record, indent=1))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def measure(model: LocalizerModel, bundle: Bundle, threads: int, seconds: float) -> dict[str, Any]:
    """Times and ratios with `threads` threads."""
    scene = render_batch(bundle.info, 1)
    calls: dict[str, Callable[[], object]] = {
        EAGER[0]: partial(eager, model, torch.from_numpy(scene.waveform), torch.from_numpy(scene.image))
    }
    products = []
    for side in SIDES:
        one, other = torch.randn(2, side, side)
        # the libraries' products differ: the better one is the peak
        for library, call in (
            ("torch", partial(torch.mm, one, other)),
            ("numpy", partial(np.matmul, *map(np.asarray, (one, other)))),
        ):
            products.append((f"product {side}, {library}", side))
            calls[products[-1][0]] = call
    pairs = [(variant, name) for variant in bundle.info.variants for name in ENGINES]
    for variant, name in pairs:
        engine = load_engine(bundle, variant, name, threads=threads)
        sources = engine.run_audio(scene.waveform)["sources"]
        calls[f"{variant.precision}, {name}, audio"] = partial(engine.run_audio, scene.waveform)
        calls[f"{variant.precision}, {name}, image"] = partial(engine.run_image, scene.image, sources)
    turns = Turns(calls, seconds)
    peak = max(2 * side**3 / float(np.median(turns.wall[name])) for name, side in products)
    operations = image_operations(bundle)
    found: dict[str, Any] = {
        "ms": {name: turns.milliseconds(name) for name in calls},
        "peak_fp32_gflops": round(peak / 1e9, 1),
        "engines": {},
    }
    for variant, name in pairs:
        audio, image = (f"{variant.precision}, {name}, {half}" for half in HALVES)
        row: dict[str, Any] = {
            "halves_times_faster_than_eager": turns.ratio(EAGER, (audio, image)),
            # the audio half on its grid, the image half on every frame
            "stream_times_less_cpu_than_eager": round(
                float(
                    np.median(turns.cpu[EAGER[0]] / (turns.cpu[image] + turns.cpu[audio] / (FRAME_RATE * HOP_SECONDS))),
                ),
                3,
            ),
        }
        if variant.precision == "fp32":
            rate = 2 * operations / float(np.median(turns.wall[image]))
            row["image_half_share_of_fp32_peak"] = round(rate / peak, 3)
        else:
            row["image_half_times_faster_than_fp32"] = turns.ratio((f"fp32, {name}, image",), (image,))
        found["engines"][f"{variant.precision}, {name}"] = row
    return found


@torch.no_grad()
def eager(model: LocalizerModel, waveform: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return what research code runs for a frame."""
    audio, cells = model(waveform, image)
    return model.localize(audio, cells)


def image_operations(bundle: Bundle) -> int:
    """Multiply-adds that the image half's graph really makes for one picture."""
    import onnx

    from avgn.export.cost import multiply_adds

    scene = render_batch(bundle.info, 1)
    variant = next(variant for variant in bundle.info.variants if variant.precision == "fp32")
    width = variant.inputs["image"][1].shape[2]
    assert isinstance(width, int)
    sources = np.zeros((1, len(bundle.info.classes), width), np.float32)
    graph = onnx.load(bundle.graph(variant, "image"))
    return sum(multiply_adds(graph, {"image": scene.image, "sources": sources}).values())


if __name__ == "__main__":
    main()
