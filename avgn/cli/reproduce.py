"""avgn reproduce."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avgn.cli.options import Report, make_parser, split_names
from avgn.runtime.errors import InputError


def _parser() -> Any:
    """Declare the options."""
    parser = make_parser(
        "reproduce", "Train and score the rows of a table of the paper, and print them beside the published ones."
    )
    parser.add_argument("recipe", type=str, help="table1, table2, table3, three-sources, or a YAML file of your own")
    parser.add_argument(
        "--data", type=str, default="synthetic", help="folder that holds MUSIC, VGGSound ..., or synthetic"
    )
    parser.add_argument(
        "--output", type=str, required=True, help="folder of the run; give it again to continue the run"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="train two steps on synthetic scenes in the same layouts"
    )
    parser.add_argument("--sets", type=str | None, default=None, help="comma-separated: only these data sets")
    parser.add_argument("--rows", type=str | None, default=None, help="comma-separated: only these rows")
    parser.add_argument("--preset", type=str | None, default=None, help="another model size, for example avgn-tiny")
    parser.add_argument(
        "--steps", type=int | None, default=None, help="number of training steps, instead of the recipe's"
    )
    parser.add_argument("--batch-size", type=int | None, default=None, help="of training, instead of the recipe's")
    parser.add_argument("--learning-rate", type=float | None, default=None, help="of training, instead of the recipe's")
    parser.add_argument("--visual-weights", type=str | None, default=None, help="imagenet, random or a state dict")
    parser.add_argument(
        "--narrow",
        type=bool | None,
        default=None,
        help="narrow models from scratch, for machines without a GPU (default: for synthetic data)",
    )
    parser.add_argument("--scenes", type=int | None, default=None, help="synthetic data: training scenes of each set")
    parser.add_argument("--test-scenes", type=int | None, default=None, help="synthetic data: test scenes of each set")
    parser.add_argument(
        "--silent", type=int | None, default=None, help="synthetic data: silent objects in each picture"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first run; further runs count on from it")
    parser.add_argument("--seeds", type=int | None, default=None, help="number of runs whose mean each row is")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that import or render")
    parser.add_argument("--parallel", type=int, default=1, help="number of rows that are trained at the same time")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the 95 %% intervals, 0: none")
    parser.add_argument("--json", type=str | None, default=None, help="write the outcome to this file")
    return parser


def reproduce(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    from avgn.reproduce import RunOptions, format_outcome, read_recipe
    from avgn.reproduce import reproduce as run
    from avgn.reproduce.layouts import Sizes

    report = Report(args.json)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("reproduce runs in one process: train the rows with torchrun -m avgn.train to use several")
    recipe = read_recipe(args.recipe)
    training = {
        name: getattr(args, name)
        for name in ("steps", "batch_size", "learning_rate", "visual_weights")
        if getattr(args, name) is not None
    }
    logging.getLogger("avgn").setLevel(logging.INFO)
    outcome = run(
        recipe,
        RunOptions(
            output=Path(args.output),
            data=args.data,
            dry_run=args.dry_run,
            sets=tuple(split_names(args.sets or "")),
            rows=tuple(split_names(args.rows or "")),
            preset=args.preset,
            training=training,
            narrow=args.narrow,
            sizes=Sizes(
                train=recipe.narrow.scenes if args.scenes is None else args.scenes,
                test=recipe.narrow.test_scenes if args.test_scenes is None else args.test_scenes,
                silent=recipe.narrow.silent if args.silent is None else args.silent,
            ),
            seed=args.seed,
            seeds=args.seeds,
            jobs=max(1, args.jobs),
            parallel=args.parallel,
            bootstrap=args.bootstrap,
        ),
    )
    report.write(outcome)
    report.say(format_outcome(outcome))
