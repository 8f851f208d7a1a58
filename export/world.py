"""Makes the bundle `world`: python -m avgn.export.world --output runs/world

From the packages that hold the published weights, and what was fitted to audio rows on free recordings (avgn.world.
refit), to a checkpoint and a verified bundle. Kernels are rounded to float16; fp32 graphs store them so and compute in
float32, 8 bits are calibrated on scenes of the demo's material (avgn.export.world_scenes). --published leaves the fit
out, to compare with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from avgn.checkpoint import save_model
from avgn.encoders.packages import EFFICIENTNET, FACES, YAMNET
from avgn.encoders.rounding import round_weights
from avgn.export.bundle import ExportOptions, check_target, export_bundle
from avgn.export.formats import check_request
from avgn.export.world_scenes import write_scenes
from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import FailureError, InputError
from avgn.world.classes import world_classes
from avgn.world.refit import NOTHING, Refit, read_refit
from avgn.world.weights import build_world, world_config

# what the package ships: on a CPU 8 bits take two thirds of the time and half the bytes, and cost no accuracy
PRECISIONS = ("int8-cpu",)
# scenes of free material that 8 bits are calibrated on (the first ones) and checked on (the others)
NUM_SCENES, NUM_SAMPLES = 160, 48
SOURCES = ", ".join(f"{each.package} {each.version}" for each in (EFFICIENTNET, YAMNET, FACES))


def make_checkpoint(folder: Path, labels: Sequence[str] | None = None, *, refit: Refit | None = None) -> Path:
    """Write the world model of these classes (by default the whole table) with its published weights.

    `refit`: what its audio rows gain, by default the package's own fit.
    """
    fit = refit or read_refit()
    model = build_world(world_config(tuple(labels or world_classes())), refit=fit)
    round_weights(model)
    fitted = f", audio rows of {len(fit.classes)} classes fitted on free recordings" if fit.classes else ""
    return save_model(model, folder, training={"converted": SOURCES + fitted})


def make_bundle(
    output: Path,
    *,
    precisions: tuple[str, ...] = PRECISIONS,
    refit: Refit | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> Bundle:
    """Write `output`/checkpoint and `output`/bundle, and `output`/scenes where 8 bits are calibrated; `refit` as in
    `make_checkpoint`.

    Raises InputError where a package is missing, and for a precision or a folder that can't be used.
    """
    in_8_bits = any(precision.startswith("int8") for precision in precisions)
    # what can't be used is said before anything is written
    check_request(("onnx",), precisions, ("calibration",) if in_8_bits else ())
    check_target(output / "bundle", overwrite)
    checkpoint = make_checkpoint(output / "checkpoint", refit=refit)
    options = ExportOptions(
        precisions=precisions,
        calibration=write_scenes(output / "scenes", NUM_SCENES) if in_8_bits else None,
        samples=NUM_SAMPLES if in_8_bits else None,
    )
    return export_bundle(checkpoint, output / "bundle", options, overwrite=overwrite, report=report)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="comma-separated")
    parser.add_argument("--published", action="store_true", help="leave the fit of audio rows out")
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args(argv)
    try:
        bundle = make_bundle(
            args.output,
            precisions=tuple(args.precision.split(",")),
            refit=NOTHING if args.published else None,
            overwrite=args.overwrite,
            report=lambda message: print(message, file=sys.stderr),
        )
    except (InputError, FailureError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(bundle.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
