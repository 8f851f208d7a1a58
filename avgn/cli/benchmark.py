"""avgn benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avgn.cli.chosen import bundle_or_default
from avgn.cli.options import Report, make_parser, split_integers, split_names
from avgn.runtime.errors import FailureError, InputError


def _parser() -> Any:
    """Declare the options."""
    parser = make_parser(
        "benchmark",
        "Compare bundles in every engine: size, accuracy, latency, throughput, memory and the whole pipeline.",
    )
    parser.add_argument(
        "bundle", type=str, nargs="*", default=[], help="bundle folders, or the names world and tiny (left out: world)"
    )
    parser.add_argument("--batch", type=str, default="1,4,16", help="comma-separated batch sizes")
    parser.add_argument(
        "--threads", type=str | None, default=None, help="comma-separated; default: 1 and all physical cores"
    )
    parser.add_argument(
        "--backends",
        type=str | None,
        default=None,
        help="comma-separated: torch, torch-compile and those of avgn localize --backend",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        help="checkpoint that the bundle was exported from: torch runs it, and accuracy is measured against it; "
        "repeat for each "
        "bundle",
    )
    parser.add_argument("--manifest", type=str | None, default=None, help="annotated items to measure CIoU and CAP on")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how many processes measure every row; all rows take turns"
    )
    parser.add_argument(
        "--seconds", type=float | None, default=None, help="seconds of measuring in each process (default 1)"
    )
    parser.add_argument("--repeats", type=int | None, default=None, help="runs in each process, instead of --seconds")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a process counts as failed")
    parser.add_argument(
        "--baseline", type=str | None, default=None, help="BACKEND or BACKEND/PRECISION; default: torch, else the first"
    )
    parser.add_argument(
        "--video-seconds", type=float, default=10.0, help="length of the pipeline's video; 0 leaves the pipeline out"
    )
    parser.add_argument("--json", type=str | None, default=None, help="write the report to this file")
    parser.add_argument("--plot", type=str | None, default=None, help="draw the report to a .png, .pdf or .svg file")
    return parser


def benchmark(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    bundles = args.bundle or [bundle_or_default(None)]
    if args.seconds is not None and args.repeats is not None:
        raise InputError("--seconds and --repeats both say how long to measure: give one of them")
    from avgn.benchmarking import BenchmarkOptions, format_report, run_benchmark
    from avgn.benchmarking.plan import USUAL
    from avgn.progress import Progress
    from avgn.runtime.bundle import Bundle
    from avgn.runtime.outputs import check_distinct, check_output

    options = BenchmarkOptions(
        batches=split_integers("--batch", args.batch),
        threads=None if args.threads is None else split_integers("--threads", args.threads),
        backends=USUAL if args.backends is None else tuple(split_names(args.backends)),
        rounds=args.rounds,
        seconds=1.0 if args.seconds is None else args.seconds,
        repeats=args.repeats,
        baseline=args.baseline,
        timeout=args.timeout,
        video_seconds=args.video_seconds,
    )
    folders = [*(Bundle.load(name).path for name in bundles), *map(Path, args.checkpoint or ())]
    read = [path for folder in folders for path in folder.glob("*")] + ([Path(args.manifest)] if args.manifest else [])
    check_distinct((args.json, args.plot))
    if args.plot is not None:
        from avgn.figures import page

        page.check_output(args.plot)
        check_output(args.plot, *read)
        page.import_matplotlib()
    written = Report(args.json, *read)
    with Progress("measurements") as progress:
        report = run_benchmark(
            bundles, options, checkpoints=args.checkpoint or (), manifest=args.manifest, progress=progress
        )
    written.write(report)
    written.say("\n".join(format_report(report)))
    failures = [row["failure"] for row in report["rows"]]
    if None not in failures:
        raise FailureError(f"no row could be measured: {failures[0]}")
    if args.plot is not None:
        from avgn.benchmarking.plot import plot_report

        plot_report(report, args.plot)
        written.say(args.plot)
