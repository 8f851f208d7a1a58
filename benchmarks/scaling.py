"""Measures what a frame costs with more classes and with larger images: avgn-resnet18, batch 1, auto engine.

python -m benchmarks.scaling --output benchmarks/results/scaling.json --plot docs/scaling.png [--cache FOLDER]

Random weights; every count of classes is a model of its own, pictures of other sizes are seen by the one of 37 classes.
Maps and sources are not varied apart: a graph has one of each for every class.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avgn.machine import measured_on
from avgn.runtime.bundle import BUNDLE_FILE, Bundle, write_bundle_info
from avgn.runtime.contract import HALVES
from avgn.runtime.engines import choose_engine
from benchmarks.bundles import bundle_folder, quick_bundle, random_model
from benchmarks.measuring import Turns

MODEL = "avgn-resnet18"
CLASSES = (11, 37, 128, 221, 512)
FEW_CLASSES, MANY_CLASSES = 11, 221
CLASSES_AT_SIZES = 37
IMAGE_SIDES = (160, 224, 320, 448)
PRECISIONS = ("fp32", "int8-cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--classes", default=",".join(map(str, CLASSES)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, for classes and for sizes")
    parser.add_argument("--cache", type=Path, help="folder that keeps the exported bundles")
    args = parser.parse_args()
    folder = bundle_folder(args.cache)
    counts = [int(count) for count in args.classes.split(",")]
    bundles = {}
    for count in sorted({*counts, CLASSES_AT_SIZES}):
        kept = folder / f"{MODEL}-{count}"
        whole = (kept / BUNDLE_FILE).is_file()
        bundles[count] = Bundle.load(kept) if whole else quick_bundle(random_model(MODEL, count), kept)
    record = {
        "machine": measured_on(),
        "model": MODEL,
        "weights": "random",
        "threads": args.threads,
        "classes": by_key({count: bundles[count] for count in counts}, args.threads, args.seconds),
        "image_side": by_key(
            {side: resized(bundles[CLASSES_AT_SIZES], side, folder) for side in IMAGE_SIDES}, args.threads, args.seconds
        ),
    }
    if args.cache is None:
        shutil.rmtree(folder)
    print(json.dumps(record, indent=1))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    if args.plot:
        plot(record, args.plot)


def resized(bundle: Bundle, side: int, folder: Path) -> Bundle:
    """Return the same graphs for pictures of another size."""
    target = folder / f"{bundle.path.name}-side-{side}"
    stride = bundle.image_size[0] // bundle.grid[0]
    shutil.copytree(bundle.path, target, dirs_exist_ok=True)
    info = replace(bundle.info, image_size=(side, side), grid=(side // stride, side // stride))
    write_bundle_info(target, info)
    return Bundle.load(target)


def by_key(bundles: dict[int, Bundle], threads: int, seconds: float) -> dict[str, Any]:
    """Measure the milliseconds of both halves of every bundle in every precision, all taking turns."""
    calls: dict[str, Callable[[], object]] = {}
    names: dict[str, str] = {}
    rng = np.random.default_rng(0)
    for key, bundle in bundles.items():
        waveform = rng.normal(0, 0.1, (1, bundle.info.window_samples)).astype(np.float32)
        image = rng.integers(0, 256, (1, *bundle.image_size, 3), dtype=np.uint8)
        for precision in PRECISIONS:
            engine = choose_engine(bundle, "auto", precision, threads=threads)
            names[precision] = engine.name
            sources = engine.run_audio(waveform)["sources"]
            calls[f"{precision} audio {key}"] = partial(engine.run_audio, waveform)
            calls[f"{precision} image {key}"] = partial(engine.run_image, image, sources)
    turns = Turns(calls, seconds)
    found: dict[str, Any] = {"engine": names, "ms": {}}
    ratios: dict[str, Any] = {}
    for precision in PRECISIONS:
        for half in HALVES:
            found["ms"][f"{precision} {half}"] = {
                str(key): turns.milliseconds(f"{precision} {half} {key}") for key in bundles
            }
        if {FEW_CLASSES, MANY_CLASSES} <= set(bundles):
            few, many = ((f"{precision} image {count}",) for count in (FEW_CLASSES, MANY_CLASSES))
            ratios[precision] = turns.ratio(many, few)
    return found | ({"image_half_many_over_few_classes": ratios} if ratios else {})


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw both curves of every half and precision."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (name, label) in zip(
        axes, (("classes", "classes"), ("image_side", "side of the picture, pixels")), strict=True
    ):
        for curve, times in record[name]["ms"].items():
            keys = [int(key) for key in times]
            style = "--" if "audio" in curve else "-"
            color = "tab:blue" if "fp32" in curve else "tab:orange"
            axis.plot(keys, [value["p50"] for value in times.values()], style, color=color, marker="o", label=curve)
        axis.set_xlabel(label)
        axis.set_ylabel("ms a run")
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.suptitle(f"{record['model']}, batch 1, {record['threads']} thread, {record['machine']['processor']}")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
