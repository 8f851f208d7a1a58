"""Runs a recipe: import, train and evaluate every row. What is done is kept, so that a stopped run goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from avgn.machine import machine
from avgn.reproduce.data import check_data, count_shared, data_folder, import_split, pretrained_weights, split_by_video
from avgn.reproduce.output import check_settings, held_output
from avgn.reproduce.published import published_rows
from avgn.reproduce.recipe import Recipe, RowSpec, SetSpec, roots_of, slug
from avgn.reproduce.rows import Run, rows_of, run_all, write_split
from avgn.reproduce.settings import SYNTHETIC, RunOptions, seeds, settings
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole

log = logging.getLogger(__name__)


def reproduce(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Run a recipe; {"title", "table", "protocol", "data", "narrow", "seed", "machine", "sets": [{"name", "metrics",
    "train_items", "items", "model", "training", "rows", "published"}]}.

    "model" and "training" are the settings that all runs of a set share. Each row holds {"row", "published",
    "protocol", "classes", "maps", "items", "values": {metric: percent}, "ci95", "std", "floor", "ceiling", "seeds",
    "seconds", "model", "training"}, the last two with what is its own. Raises InputError for data or options that
    can't be used, FailureError where a training fails.
    """
    narrow = options.is_narrow
    names = options.sets or (recipe.narrow.sets if narrow else ())
    sets = _chosen(recipe.sets, names, "set")
    rows = _chosen(recipe.rows, options.rows, "row")
    for spec in sets:
        for row in rows:
            settings(recipe, spec, row, ("a", "b"), options, options.seed)
    _check_registered(recipe, sets)
    roots = roots_of(sets, recipe.narrow.pretrain if narrow else None)
    check_data(recipe, roots, options)
    with held_output(options.output):
        check_settings(options.output, _identity(recipe, options))
        return _reproduce(recipe, sets, rows, data_folder(recipe, roots, options), options)


def _reproduce(
    recipe: Recipe, sets: list[SetSpec], rows: list[RowSpec], data: Path, options: RunOptions
) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "title": recipe.title,
        "table": recipe.table,
        "protocol": recipe.protocol,
        "data": "dry run" if options.dry_run else SYNTHETIC if options.data == SYNTHETIC else "real",
        "narrow": options.is_narrow,
        "seed": options.seed,
        "machine": machine() | {"parallel": options.parallel},
        "sets": [],
    }
    weights = pretrained_weights(recipe, sets[0], rows[0], data, options)
    for spec in sets:
        folder = options.output / slug(spec.name)
        folder.mkdir(exist_ok=True)
        runs, test, manifest = _runs(recipe, spec, rows, data, folder, weights, options)
        done: dict[str, dict[int, dict[str, Any]]] = {row.name: {} for row in rows}
        for run, scores in run_all(runs, options.parallel):
            done[run.name][run.seed] = scores
            taken = scores["seconds"]["training"]
            how = "done" if taken is None else f"trained in {taken:.0f} s"
            log.info("%s: %s, seed %d %s", spec.name, run.name, run.seed, how)
        shared = {kind: _shared([_facts(run)[kind] for run in runs]) for kind in ("model", "training")}
        found: list[dict[str, Any]] = []
        for row in rows:
            ordered = dict(sorted(done[row.name].items()))
            facts = _facts(next(run for run in runs if run.name == row.name))
            own = {
                kind: {name: value for name, value in facts[kind].items() if name not in shared[kind]}
                for kind in shared
            }
            found += [scored | own for scored in rows_of(row.name, row.published, ordered, spec.metrics)]
        outcome["sets"].append(
            {
                "name": spec.name,
                "metrics": list(spec.metrics),
                "train_items": manifest,
                "items": test,
                **shared,
                "rows": found,
                "published": published_rows(recipe.table, spec.published or spec.name),
            }
        )
        write_whole(options.output / "outcome.json", json.dumps(outcome, indent=1) + "\n")
    return outcome


def _runs(
    recipe: Recipe,
    spec: SetSpec,
    rows: list[RowSpec],
    data: Path,
    folder: Path,
    weights: Path | None,
    options: RunOptions,
) -> tuple[list[Run], int, int]:
    """List every training of a set, with the numbers of its test items and training items.

    spec: the set. rows: what is trained on it. data: the folder of the data sets. folder: that of this set in the run.
    weights: of pretrained encoders, if any. Raises InputError for training and test lists of different classes.
    """
    whole = import_split(spec.train, data, folder / "train.jsonl", options)
    test = import_split(spec.test, data, folder / "test.jsonl", options)
    if whole.classes != test.classes:
        raise InputError(
            f"{spec.name}: {whole.path} and {test.path} have different classes: give the data set's own lists"
        )
    if shared := count_shared(whole, test):
        log.warning(
            "%s: %d of %d test items come from training videos: their scores say nothing about new videos",
            spec.name,
            shared,
            len(test.items),
        )
    train, held = split_by_video(whole, recipe.holdout, options.seed)
    paths = {name: write_split(part, folder, name) for name, part in (("fit", train), ("held", held))}
    runs = []
    for row in rows:
        for seed in seeds(recipe, row, options):
            config, training = settings(recipe, spec, row, whole.classes, options, seed)
            if weights is not None:
                visual, audio = (str(weights / f"{part}.safetensors") for part in ("visual", "audio"))
                training = replace(training, visual_weights=visual, audio_weights=audio)
            runs.append(
                Run(
                    name=row.name,
                    output=folder / (slug(row.name) + (f"-seed{seed}" if seed != options.seed else "")),
                    config=config,
                    training=training,
                    train=paths["fit"],
                    held=paths["held"],
                    test=test.path,
                    protocols=tuple(dict.fromkeys((recipe.protocol, "frame-wise", "adaptive"))),
                    bootstrap=options.bootstrap,
                )
            )
    return runs, len(test.items), len(train.items)


def _facts(run: Run) -> dict[str, dict[str, Any]]:
    """Return the settings of a run, without its seed and without paths of this machine."""
    facts = {name: value for name, value in run.training.to_dict().items() if name != "seed"}
    started = {name: str(facts[name]) for name in ("visual_weights", "audio_weights") if facts[name] is not None}
    training = facts | {name: Path(source).name for name, source in started.items()}
    return {"model": run.config.to_dict(), "training": training}


def _shared(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the entries that all mappings share."""
    first = facts[0]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in facts)}


def _check_registered(recipe: Recipe, sets: list[SetSpec]) -> None:
    """Find mistakes before hours of training that otherwise only scoring would find."""
    from avgn.evaluation.protocols import find_protocol
    from avgn.importers import IMPORTERS

    find_protocol(recipe.protocol)
    narrow = recipe.narrow.pretrain
    names = {part.importer for spec in sets for part in (spec.train, spec.test)} | (
        {narrow.importer} if narrow is not None else set()
    )
    for name in sorted(names):
        if name not in IMPORTERS:
            raise InputError(f"{recipe.table}: importer {name!r} is not known: use one of {', '.join(IMPORTERS)}")


def _identity(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Return all that results depend on, except the choice of sets, rows and seeds, which may grow."""
    facts = vars(options) | {"narrow": options.is_narrow, "recipe": asdict(recipe)}
    facts["sizes"] = None if options.sizes is None else asdict(options.sizes)
    if options.data != SYNTHETIC:
        facts["data"] = str(Path(options.data).resolve())
    for name in ("output", "sets", "rows", "seeds", "jobs", "parallel"):
        del facts[name]
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def _chosen(specs: Any, names: tuple[str, ...], kind: str) -> list[Any]:
    known = {spec.name: spec for spec in specs}
    for name in names:
        if name not in known:
            raise InputError(f"{kind} {name!r} is not in this recipe: choose from {', '.join(known)}")
    return [known[name] for name in names] or list(specs)
