"""avgn evaluate, calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avgn.cli.options import (
    Report,
    add_backend_option,
    is_checkpoint,
    load_engine,
    load_localizer,
    make_parser,
    parse_integers,
    split_names,
)
from avgn.runtime.errors import InputError

NO_MODEL = "none"
DESCRIPTION = """Score a checkpoint or a bundle under named protocols.

  source-wise  min-max per map, at least the median, each source on its own picture
  frame-wise   the same on the whole canvas of a concatenated pair
  adaptive     as many pixels as the mask has
  lvs, ezvsl, slavc   one source an image (slavc: with silent and off-screen negatives)
  dsol         above a share of the maximum: .1 solo, .5 synthetic, .2 duet
  release      the public release with its errors, for regression only
  video        the streaming localizer over video files
  all          those that suit the manifest

The model none gives floors, chance and ceilings of a manifest alone."""


def _evaluate_parser() -> Any:
    """Declare the options."""
    parser = make_parser("evaluate", DESCRIPTION)
    parser.add_argument(
        "model", type=str, help="checkpoint folder, bundle folder, the name world or tiny, or none (bounds only)"
    )
    parser.add_argument("manifest", type=str, help="annotated items to score on")
    parser.add_argument(
        "--protocol",
        type=str,
        default="source-wise,frame-wise,adaptive",
        help="comma-separated; all takes those that suit the manifest",
    )
    parser.add_argument(
        "--classes",
        type=str,
        default="given,predicted",
        help="where the classes come from: given, predicted or both, comma-separated",
    )
    parser.add_argument("--thresholds", type=str | None, default=None, help="validation manifest to calibrate on")
    parser.add_argument(
        "--pair-input",
        type=str,
        default="canvas",
        help="how items of several pictures are put in: canvas (side by side) or crops (one by one)",
    )
    parser.add_argument(
        "--dsol-threshold",
        type=float | None,
        default=None,
        help="share of a map's maximum that DSOL's protocol takes as threshold",
    )
    parser.add_argument(
        "--grid",
        type=str | None,
        default=None,
        help="with model none: h,w of the maps that the ceilings are computed for",
    )
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the 95 %% intervals, 0: none")
    parser.add_argument("--workers", type=int | None, default=None, help="threads that score (default: one a core)")
    parser.add_argument("--skip-bad", action="store_true", help="count unreadable items instead of stopping")
    add_backend_option(parser)
    parser.add_argument(
        "--device", type=str, default="cpu", help="for a checkpoint: cpu or cuda; for a bundle see --backend"
    )
    parser.add_argument("--json", type=str | None, default=None, help="write the results to this file")
    return parser


def evaluate(argv: Sequence[str]) -> None:
    args = _evaluate_parser().parse_args(argv)
    _check_evaluation(args)
    report = Report(args.json, Path(args.manifest))
    results = _bounds(args) if args.model == NO_MODEL else _scores(args)
    from avgn.evaluation import format_table

    report.write(results)
    report.say(format_table(results))


def _check_evaluation(args: Any) -> None:
    """Raise InputError for options that are out of range or that the model doesn't take."""
    for option, value, least in (("--bootstrap", args.bootstrap, 0), ("--workers", args.workers, 1)):
        if value is not None and value < least:
            raise InputError(f"{option} must be at least {least}, got {value}: leave it out for the default")
    if args.grid is not None and args.model != NO_MODEL:
        raise InputError(f"--grid goes with the model {NO_MODEL}, got {args.model}: a model has a grid of its own")
    if args.backend != "auto" and (args.model == NO_MODEL or is_checkpoint(args.model)):
        what = "runs nothing" if args.model == NO_MODEL else "is a checkpoint, which PyTorch runs"
        raise InputError(f"--backend {args.backend} is for a bundle, but {args.model} {what}: leave it out")
    if args.device != "cpu" and args.model == NO_MODEL:
        raise InputError(f"--device {args.device} is for a checkpoint, but {args.model} runs nothing: leave it out")


def _bounds(args: Any) -> list[dict[str, Any]]:
    from avgn.evaluation import evaluate_bounds
    from avgn.evaluation.canvas import CANVAS
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest

    if args.thresholds is not None:
        raise InputError(f"--thresholds calibrates a model, got the model {NO_MODEL}: leave it out")
    if "given" not in split_names(args.classes):
        raise InputError(f"--classes must hold given for the model {NO_MODEL}, got {args.classes!r}: leave it out")
    grid = CANVAS if args.grid is None else parse_integers("--grid", args.grid, 2)
    # bounds need no frame and no sound
    manifest = read_manifest(args.manifest, check_files=False)
    with Progress("items") as progress:
        return evaluate_bounds(
            manifest,
            split_names(args.protocol),
            grid=(grid[0], grid[1]),
            skip_bad=args.skip_bad,
            dsol_share=args.dsol_threshold,
            workers=args.workers,
            progress=progress,
        )


def _scores(args: Any) -> list[dict[str, Any]]:
    import numpy as np

    from avgn.evaluation import evaluate
    from avgn.evaluation.calibration import calibrate
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest

    manifest = read_manifest(args.manifest, check_files=not args.skip_bad)
    engine = load_engine(args.model, args.backend, args.device)
    thresholds = None
    if args.thresholds is not None:
        found = calibrate(engine, read_manifest(args.thresholds), disjoint_from=manifest)
        thresholds = (np.array(found.audio), np.array(found.visual))
    with Progress("items") as progress:
        return evaluate(
            engine,
            manifest,
            split_names(args.protocol),
            split_names(args.classes),
            thresholds=thresholds,
            bootstrap=args.bootstrap,
            skip_bad=args.skip_bad,
            pair_input=args.pair_input,
            dsol_share=args.dsol_threshold,
            workers=args.workers,
            progress=progress,
        )


def calibrate(argv: Sequence[str]) -> None:
    parser = make_parser(
        "calibrate",
        "Fit a bundle's thresholds and joint rule to annotated items, which must not be used for scoring later.",
    )
    parser.add_argument("bundle", type=str, help="bundle folder, whose bundle.json is rewritten")
    parser.add_argument("manifest", type=str, help="items with their sources, in the bundle's classes or some of them")
    add_backend_option(parser)
    parser.add_argument("--max-false", type=float, default=0.25, help="false sources an image that the rule may give")
    parser.add_argument("--json", type=str | None, default=None, help="write the same as JSON")
    parser.add_argument(
        "--plot", type=str | None, default=None, help="draw the reliability of the probabilities: PNG, PDF or SVG"
    )
    args = parser.parse_args(argv)
    from avgn.evaluation.joint_calibration import calibrate_bundle
    from avgn.figures.page import check_output, import_matplotlib
    from avgn.figures.reliability import plot_reliability
    from avgn.progress import Progress
    from avgn.runtime.bundle import SHIPPED, Bundle
    from avgn.runtime.manifest import read_manifest

    if args.bundle in SHIPPED:
        raise InputError(f"bundle {args.bundle!r} is the package's own and is not changed: copy its folder first")
    if not args.max_false > 0:
        raise InputError(f"--max-false must be above 0, got {args.max_false:g}: no rule is never wrong")
    if args.plot is not None:
        # whatever is missing is said before bundle.json is written again
        check_output(args.plot)
        import_matplotlib()
    report = Report(args.json, Path(args.manifest), Path(args.bundle))
    manifest = read_manifest(args.manifest)
    engine = load_localizer(args).engine
    with Progress("items") as progress:
        found = calibrate_bundle(
            Bundle.load(args.bundle), engine, manifest, max_false=args.max_false, progress=progress
        )
    if args.plot is not None:
        plot_reliability(found.reliability, args.plot)
    report.write(asdict(found))
    lines = [f"class F1 {found.before[0]:.1f} -> {found.f1:.1f} %", ""]
    lines[0] += f", false sources an image {found.before[1]:.2f} -> {found.false_sources:.2f}"
    lines[1] = f"weight of what is seen {found.joint.visual_weight:.3g}, threshold {found.joint.thresholds[0]:.3g}"
    lines.append(f"{'probability':>12}{'scores':>9}{'right':>8}")
    lines += [f"{mean:12.3f}{count:9d}{100 * share:7.1f}%" for count, mean, share in found.reliability if count]
    lines += [f"note: {found.note}"] if found.note else []
    report.say("\n".join(lines))
