"""Runs a recipe: import, train and evaluate every row. What is done is kept, so that a stopped run goes on."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avgn.reproduce.compose import compose
from avgn.reproduce.layouts import Sizes, write_layouts
from avgn.reproduce.pretrain import pretrain
from avgn.reproduce.published import published_rows
from avgn.reproduce.recipe import DataSpec, Recipe, RowSpec, SetSpec
from avgn.reproduce.rows import Run, rows_of, run_all, write_split
from avgn.reproduce.settings import DRY_SIZES, SYNTHETIC, RunOptions, seeds, settings
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.manifest import Manifest, read_manifest, write_manifest

log = logging.getLogger(__name__)


def reproduce(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Run a recipe; {"title", "table", "protocol", "data", "settings", "machine", "sets": [{"name", "items", "rows",
    "published", "metrics"}]}.

    Each row holds {"row", "protocol", "classes", "values": {metric: percent}, "ci95", "std", "floor", "ceiling",
    "seeds", "seconds"}. Raises InputError for data or options that can't be used.
    """
    for name, count in (("parallel", options.parallel), ("seeds", options.seeds)):
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, got {count}: give a larger number or leave it out")
    narrow = options.is_narrow
    names = options.sets or (recipe.narrow.sets if narrow else ())
    sets = _chosen(recipe.sets, names, "set")
    rows = _chosen(recipe.rows, options.rows, "row")
    for spec in sets:
        for row in rows:
            settings(recipe, spec, row, ("a", "b"), options, options.seed)
    data = _data_folder(recipe, sets, options)
    options.output.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any] = {
        "title": recipe.title,
        "table": recipe.table,
        "protocol": recipe.protocol,
        "data": "dry run" if options.dry_run else SYNTHETIC if options.data == SYNTHETIC else "real",
        "narrow": narrow,
        "seed": options.seed,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "parallel": options.parallel},
        "sets": [],
    }
    weights = _pretrained(recipe, sets[0], rows[0], data, options)
    for spec in sets:
        folder = options.output / _slug(spec.name)
        folder.mkdir(exist_ok=True)
        runs, test, manifest = _runs(recipe, spec, rows, data, folder, weights, options)
        done: dict[str, dict[int, dict[str, Any]]] = {row.name: {} for row in rows}
        for run, scores in run_all(runs, options.parallel):
            done[run.name][run.seed] = scores
            log.info("%s: %s, seed %d done in %.0f s", spec.name, run.name, run.seed, scores["seconds"]["training"])
        found: list[dict[str, Any]] = []
        for row in rows:
            ordered = dict(sorted(done[row.name].items()))
            found += rows_of(row.name, row.published, ordered, spec.metrics)
        outcome["sets"].append(
            {
                "name": spec.name,
                "metrics": list(spec.metrics),
                "train items": manifest,
                "items": test,
                "model": runs[0].config.to_dict(),
                "training": _shared_training(runs[0]),
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
    """Every training of a set, with how many items it tests and how many it trains on."""
    whole = _manifest(spec.train, data, folder / "train.jsonl", options)
    test = _manifest(spec.test, data, folder / "test.jsonl", options)
    if whole.classes != test.classes:
        raise InputError(
            f"{spec.name}: {whole.path} and {test.path} have different classes: give the data set's own lists"
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
                    output=folder / (_slug(row.name) + (f"-seed{seed}" if seed != options.seed else "")),
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


def _shared_training(run: Run) -> dict[str, Any]:
    """The settings of training without what differs between runs or machines."""
    facts = {name: value for name, value in vars(run.training).items() if name not in ("seed", "auxiliary")}
    started = {name: str(facts[name]) for name in ("visual_weights", "audio_weights") if facts[name] is not None}
    return facts | {name: Path(source).name for name, source in started.items()}


def _pretrained(recipe: Recipe, spec: SetSpec, row: RowSpec, data: Path, options: RunOptions) -> Path | None:
    """The folder of weights that every row's encoders start from, made once a run; None where they have their own."""
    how = recipe.narrow.pretrain
    if how is None or not options.is_narrow or "visual_weights" in options.training:
        return None
    folder = options.output / "pretrained"
    if not (folder / "audio.safetensors").is_file():
        folder.mkdir(exist_ok=True)
        source = DataSpec(importer=how.importer, root=how.root, split=how.split)
        manifest = _manifest(source, data, folder / "solos.jsonl", options)
        config, _ = settings(recipe, spec, row, manifest.classes, options, options.seed)
        pretrain(config, manifest, how, folder, options.seed)
    return folder


def split_by_video(manifest: Manifest, share: float, seed: int) -> tuple[Manifest, Manifest]:
    """(training, held-out) items, whole videos at a time. Raises InputError when there is one video only."""
    videos = sorted({item.video for item in manifest.items})
    if len(videos) < 2:
        raise InputError(
            f"{manifest.path} has {len(videos)} video: thresholds need held-out videos, so give two or more"
        )
    count = min(len(videos) - 1, max(1, round(share * len(videos))))
    held = {videos[k] for k in np.random.default_rng(seed).permutation(len(videos))[:count]}
    parts = [tuple(item for item in manifest.items if (item.video in held) is which) for which in (False, True)]
    return replace(manifest, items=parts[0]), replace(manifest, items=parts[1])


def _chosen(specs: Any, names: tuple[str, ...], kind: str) -> list[Any]:
    known = {spec.name: spec for spec in specs}
    for name in names:
        if name not in known:
            raise InputError(f"{kind} {name!r} is not in this recipe: choose from {', '.join(known)}")
    return [known[name] for name in names] or list(specs)


def _data_folder(recipe: Recipe, sets: list[SetSpec], options: RunOptions) -> Path:
    roots = {part.root for spec in sets for part in (spec.train, spec.test)}
    if options.is_narrow and recipe.narrow.pretrain is not None:
        roots.add(recipe.narrow.pretrain.root)
    if options.dry_run or options.data == SYNTHETIC:
        folder = options.output / "data"
        narrow = recipe.narrow
        sizes = options.sizes or Sizes(train=narrow.scenes, test=narrow.test_scenes, silent=narrow.silent)
        for root in sorted(roots):
            if not (folder / f"{root}.complete").is_file():
                shutil.rmtree(folder / root, ignore_errors=True)
                chosen = DRY_SIZES if options.dry_run else sizes
                write_layouts(folder, {root}, chosen, seed=options.seed, jobs=options.jobs)
                write_whole(folder / f"{root}.complete", "")
        return folder
    folder = Path(options.data)
    if not folder.is_dir():
        raise InputError(f"--data {folder} is no folder: give the one that holds {', '.join(sorted(roots))}")
    missing = sorted(root for root in roots if not (folder / root).is_dir())
    if missing:
        raise InputError(
            f"{folder} has no folder {' and no '.join(missing)}: "
            "lay each data set there with frames/, audio/ and metadata/"
        )
    return folder


def _manifest(spec: DataSpec, data: Path, path: Path, options: RunOptions) -> Manifest:
    from avgn.datasets import Options, import_dataset

    if not path.is_file():
        root = data / spec.root
        found = import_dataset(
            spec.importer,
            Options(
                root=root,
                metadata=root / "metadata",
                output=path,
                split=spec.split,
                extended=spec.extended,
                jobs=options.jobs,
            ),
        )
        for line in found.report.lines(found.items):
            log.info("%s: %s", path.name, line)
    manifest = read_manifest(path)
    if spec.compose > 1:
        manifest = compose(manifest, spec.compose, min(spec.items, 10 if options.dry_run else spec.items), options.seed)
        composed = path.with_name(f"{path.stem}-{spec.compose}.jsonl")
        write_manifest(composed, manifest.classes, manifest.items)
        manifest = read_manifest(composed)
    return manifest


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name.lower())
