"""avgn evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avgn.cli.options import make_parser, split_names, write_json

if TYPE_CHECKING:
    from avgn.runtime.engines import Engine


def evaluate(argv: Sequence[str]) -> None:
    parser = make_parser("evaluate", "Score a checkpoint or a bundle under named protocols.")
    parser.add_argument("model", type=str, help="checkpoint folder, bundle folder or the name tiny")
    parser.add_argument("manifest", type=str)
    parser.add_argument("--protocol", type=str, default="source-wise,adaptive", help="comma-separated; also: video")
    parser.add_argument("--classes", type=str, default="given,predicted")
    parser.add_argument("--thresholds", type=str | None, default=None, help="validation manifest to calibrate on")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the 95 %% intervals, 0: none")
    parser.add_argument("--skip-bad", action="store_true", help="count unreadable items instead of stopping")
    parser.add_argument("--backend", type=str, default="auto")
    parser.add_argument("--json", type=str | None, default=None, help="write the results to this file")
    args = parser.parse_args(argv)
    import numpy as np

    from avgn.evaluation import evaluate, format_table
    from avgn.evaluation.calibration import calibrate
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest

    manifest = read_manifest(args.manifest, check_files=not args.skip_bad)
    protocols = split_names(args.protocol)
    engine = load_engine(args.model, args.backend)
    thresholds = None
    if args.thresholds is not None:
        found = calibrate(engine, read_manifest(args.thresholds), disjoint_from=manifest)
        thresholds = (np.array(found.audio), np.array(found.visual))
    with Progress("items") as progress:
        results = evaluate(
            engine,
            manifest,
            protocols,
            split_names(args.classes),
            thresholds=thresholds,
            bootstrap=args.bootstrap,
            skip_bad=args.skip_bad,
            progress=progress,
        )
    if args.json is not None:
        write_json(args.json, results)
    print(format_table(results))


def load_engine(model: str, backend: str = "auto") -> Engine:
    """The engine of a checkpoint folder (PyTorch) or of a bundle (by `backend`)."""
    from avgn.runtime.bundle import BUNDLE_FILE, Bundle
    from avgn.runtime.engines import choose_engine

    folder = Path(model)
    if (folder / "config.json").is_file() and not (folder / BUNDLE_FILE).is_file():
        from avgn.checkpoint import load_model
        from avgn.engine import TorchEngine

        return TorchEngine(load_model(folder))
    return choose_engine(Bundle.load(model), backend)
