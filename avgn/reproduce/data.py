"""Prepares what a run trains and tests on: folders of data sets (real or synthetic), manifests, pretrained encoders."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from avgn.reproduce.compose import compose
from avgn.reproduce.layouts import LAYOUTS, Sizes, write_layouts
from avgn.reproduce.pretrain import pretrain
from avgn.reproduce.recipe import DataSpec, Recipe, RowSpec, SetSpec
from avgn.reproduce.settings import DRY_SIZES, RunOptions, settings
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.manifest import Manifest, read_manifest, write_manifest

log = logging.getLogger(__name__)


def check_data(recipe: Recipe, roots: list[str], options: RunOptions) -> None:
    """Raise InputError for data that doesn't exist or can't be synthesized."""
    if options.is_made_up:
        unknown = [root for root in roots if root not in LAYOUTS]
        if unknown:
            raise InputError(
                f"{recipe.table}: nothing can be made up for root {unknown[0]!r}: use {', '.join(LAYOUTS)}, or give "
                "--data FOLDER"
            )
        return
    folder = Path(options.data)
    if not folder.is_dir():
        raise InputError(f"--data {folder} is no folder: give the one that holds {', '.join(roots)}")
    missing = [root for root in roots if not (folder / root).is_dir()]
    if missing:
        raise InputError(
            f"{folder} has no folder {' and no '.join(missing)}: "
            "lay each data set there with frames/, audio/ and metadata/"
        )


def data_folder(recipe: Recipe, roots: list[str], options: RunOptions) -> Path:
    """Return the folder that holds the data sets; synthetic ones are rendered first."""
    if not options.is_made_up:
        return Path(options.data)
    folder = options.output / "data"
    narrow = recipe.narrow
    sizes = options.sizes or Sizes(train=narrow.scenes, test=narrow.test_scenes, silent=narrow.silent)
    for root in roots:
        if not (folder / f"{root}.complete").is_file():
            shutil.rmtree(folder / root, ignore_errors=True)
            chosen = DRY_SIZES if options.dry_run else sizes
            write_layouts(folder, {root}, chosen, seed=options.seed, jobs=options.jobs)
            write_whole(folder / f"{root}.complete", "")
    return folder


def import_split(spec: DataSpec, data: Path, path: Path, options: RunOptions) -> Manifest:
    """Return the manifest of an imported split at `path`; import it if it isn't there yet."""
    from avgn.importers import ImportOptions, import_dataset

    if not path.is_file():
        root = data / spec.root
        found = import_dataset(
            spec.importer,
            ImportOptions(
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


def split_by_video(manifest: Manifest, share: float, seed: int) -> tuple[Manifest, Manifest]:
    """Split items into (training, held-out), whole videos at a time. Raises InputError if there is only one video."""
    videos = sorted({item.video for item in manifest.items})
    if len(videos) < 2:
        raise InputError(
            f"{manifest.path} has {len(videos)} video: thresholds need held-out videos, so give two or more"
        )
    count = min(len(videos) - 1, max(1, round(share * len(videos))))
    held = {videos[k] for k in np.random.default_rng(seed).permutation(len(videos))[:count]}
    parts = [tuple(item for item in manifest.items if (item.video in held) is which) for which in (False, True)]
    return replace(manifest, items=parts[0]), replace(manifest, items=parts[1])


def count_shared(train: Manifest, test: Manifest) -> int:
    """Count the test items that come from training videos."""
    videos = {item.video for item in train.items}
    return sum(item.video in videos for item in test.items)


def pretrained_weights(recipe: Recipe, spec: SetSpec, row: RowSpec, data: Path, options: RunOptions) -> Path | None:
    """Return the folder of weights that every row's encoders start from, trained once a run; None if rows have their
    own."""
    how = recipe.narrow.pretrain
    if how is None or not options.is_narrow or "visual_weights" in options.training:
        return None
    folder = options.output / "pretrained"
    if not (folder / "audio.safetensors").is_file():
        folder.mkdir(exist_ok=True)
        source = DataSpec(importer=how.importer, root=how.root, split=how.split)
        manifest = import_split(source, data, folder / "solos.jsonl", options)
        config, _ = settings(recipe, spec, row, manifest.classes, options, options.seed)
        if any(source == replace(each.train, extended=False, compose=1) for each in recipe.sets):
            # thresholds must not be chosen on items that the encoders were trained on
            manifest, _ = split_by_video(manifest, recipe.holdout, options.seed)
        pretrain(config, manifest, how, folder, options.seed)
    return folder
