"""Runs a recipe: import, train, evaluate. What is done is kept, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avgn.reproduce.compose import compose
from avgn.reproduce.layouts import Sizes, write_layouts
from avgn.reproduce.published import published_rows
from avgn.reproduce.recipe import DataSpec, Recipe, RowSpec, SetSpec
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.manifest import Manifest, read_manifest, write_manifest

if TYPE_CHECKING:
    from avgn.config import Config
    from avgn.training import TrainConfig

log = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
# a dry run shows that everything runs, in a minute
DRY_MODEL: dict[str, Any] = {
    "image_size": (64, 64),
    "visual_stride": 16,
    "width_visual": 4,
    "width_audio": 4,
    "dim": 16,
    "heads": 4,
    "depth": 1,
    "window_seconds": 0.3,
}
DRY_TRAINING: dict[str, Any] = {"steps": 2, "batch_size": 4, "visual_weights": "random", "workers": 0, "cache": True}
DRY_SIZES = Sizes(train=48, test=12, size=(96, 96), seconds=0.5)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """`data`: the folder that holds the recipe's data sets, or "synthetic"; `output`: new, or that of a run to go on
    with. `sets` and `rows` choose by name. `model` and `training` override the recipe. `sizes` are those of synthetic
    data. A dry run trains for two steps on made-up scenes in the layouts of the data sets.
    """

    output: Path
    data: str = SYNTHETIC
    dry_run: bool = False
    sets: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    preset: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes = Sizes(train=8000, test=300)
    seed: int = 0
    jobs: int = 1
    bootstrap: int = 1000


def reproduce(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Run a recipe; {"title", "table", "protocol", "data", "sets": [{"name", "metrics", "rows": [...], "published"}]}.

    Each row holds {"row", "classes", "values": {metric: percent}, "ci95", "floor", "ceiling"}. Raises InputError for
    data or options that can't be used.
    """
    sets = _chosen(recipe.sets, options.sets, "set")
    rows = _chosen(recipe.rows, options.rows, "row")
    for spec in sets:
        for row in rows:
            _settings(recipe, spec, row, ("a", "b"), options)
    data = _data_folder(sets, options)
    options.output.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any] = {
        "title": recipe.title,
        "table": recipe.table,
        "protocol": recipe.protocol,
        "data": "dry run" if options.dry_run else SYNTHETIC if options.data == SYNTHETIC else "real",
        "seed": options.seed,
        "sets": [],
    }
    for spec in sets:
        folder = options.output / _slug(spec.name)
        folder.mkdir(exist_ok=True)
        whole = _manifest(spec.train, data, folder / "train.jsonl", options)
        test = _manifest(spec.test, data, folder / "test.jsonl", options)
        if whole.classes != test.classes:
            raise InputError(
                f"{spec.name}: {whole.path} and {test.path} have different classes: give the data set's own lists"
            )
        train, held = split_by_video(whole, recipe.holdout, options.seed)
        found: list[dict[str, Any]] = []
        for row in rows:
            checkpoint = _train(recipe, spec, row, train, held, folder / _slug(row.name), options)
            found += _evaluate(recipe, spec, row, checkpoint, test, options)
        outcome["sets"].append(
            {
                "name": spec.name,
                "metrics": list(spec.metrics),
                "items": len(test.items),
                "rows": found,
                "published": published_rows(recipe.table, spec.published or spec.name),
            }
        )
        write_whole(options.output / "outcome.json", json.dumps(outcome, indent=1) + "\n")
    return outcome


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


def _data_folder(sets: list[SetSpec], options: RunOptions) -> Path:
    roots = {part.root for spec in sets for part in (spec.train, spec.test)}
    if options.dry_run or options.data == SYNTHETIC:
        folder = options.output / "data"
        if not (folder / "complete").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            write_layouts(
                folder, roots, DRY_SIZES if options.dry_run else options.sizes, seed=options.seed, jobs=options.jobs
            )
            write_whole(folder / "complete", "")
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


def _settings(
    recipe: Recipe, spec: SetSpec, row: RowSpec, classes: tuple[str, ...], options: RunOptions
) -> tuple[Config, TrainConfig]:
    """What a row is trained with. Raises InputError for entries that a recipe or an option got wrong."""
    from avgn.config import preset
    from avgn.training import TrainConfig

    model = recipe.model | row.model | options.model
    settings = recipe.training | spec.training | options.training | {"seed": options.seed}
    if options.dry_run:
        model, settings = model | DRY_MODEL, settings | DRY_TRAINING
    try:
        return preset(options.preset or recipe.preset, classes=classes, **model), TrainConfig(**settings)
    except (ValueError, TypeError) as error:
        raise InputError(f"{recipe.table}, row {row.name}: {error}") from None


def _train(
    recipe: Recipe, spec: SetSpec, row: RowSpec, train: Manifest, held: Manifest, output: Path, options: RunOptions
) -> Path:
    from avgn.checkpoint import WEIGHTS
    from avgn.training.fit import train as fit

    if (output / WEIGHTS).is_file():
        return output
    config, training = _settings(recipe, spec, row, train.classes, options)
    log.info("%s: training %s on %d items", spec.name, row.name, len(train.items))
    return fit(
        config, train, held, output, training, resume=(output / "checkpoints" / "last.ckpt").is_file(), progress=None
    )


def _evaluate(
    recipe: Recipe, spec: SetSpec, row: RowSpec, checkpoint: Path, test: Manifest, options: RunOptions
) -> list[dict[str, Any]]:
    from avgn.checkpoint import load_model
    from avgn.engine import TorchEngine
    from avgn.evaluation import evaluate

    kept = checkpoint / "scores.json"
    if kept.is_file():
        results = json.loads(kept.read_text(encoding="utf-8"))
    else:
        engine = TorchEngine(load_model(checkpoint))
        modes = ("given", "predicted") if engine.info.has_presence else ("given",)
        results = evaluate(
            engine, test, [recipe.protocol, "adaptive"], modes, bootstrap=options.bootstrap, seed=options.seed
        )
        write_whole(kept, json.dumps(results) + "\n")
    found = []
    for result in results:
        values = {bound: _pick(result.get(bound, {}), spec) for bound in ("metrics", "ci95", "floor", "ceiling")}
        found.append(
            {
                "row": row.name,
                "published": row.published,
                "protocol": result["protocol"],
                "classes": result["classes"],
                "maps": result["maps"],
                "items": result["items"],
                "values": values["metrics"],
                "ci95": values["ci95"],
                "floor": values["floor"],
                "ceiling": values["ceiling"],
            }
        )
    return found


def _pick(values: dict[str, Any], spec: SetSpec) -> dict[str, Any]:
    return {shown: values.get(ours) for shown, ours in spec.metrics.items()}


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name.lower())
