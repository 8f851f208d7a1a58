"""Reads recipes from YAML, checked before a run: which data sets a table is made of, and how its rows are trained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import avgn
from avgn.reproduce.pretrain import PretrainSpec
from avgn.runtime.documents import read_yaml, shown
from avgn.runtime.errors import InputError
from avgn.runtime.texts import is_name
from avgn.typed import fits, said

FOLDER = Path(avgn.__file__).parent / "recipes"
# folders of a run that don't belong to a set
RESERVED = ("data", "pretrained")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Says what to import: an importer's name and split of `root`, the name of a folder below --data; `compose` > 1
    sets so many of its test items side by side, with the sum of their sounds; `items` limits how many are made so.
    """

    importer: str
    root: str
    split: str
    extended: bool = False
    compose: int = 1
    items: int = 1000


@dataclass(frozen=True, kw_only=True)
class SetSpec:
    """Describes one column group of a table: data to train and to test on, the printed metrics as {theirs: ours}, and
    what differs in training.
    """

    name: str
    train: DataSpec
    test: DataSpec
    metrics: dict[str, str]
    training: dict[str, Any] = field(default_factory=dict)
    published: str | None = None


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """Describes one row that is trained: what differs in the model's configuration (`system` names another paper's) and
    in training, and the published row it stands beside.
    """

    name: str
    published: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NarrowSpec:
    """Replaces a recipe's settings with those of narrow models trained from scratch, for machines without a GPU.

    `seeds` says how many runs a row is the mean of, where that isn't one; `sets` are those that are run unless others
    are asked for; `scenes`, `test_scenes` and `silent` (objects that are seen, not heard) are those of synthetic data.
    `pretrain` makes the weights that both encoders of every row start from.
    """

    preset: str = "avgn-tiny"
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    scenes: int = 8000
    test_scenes: int = 300
    silent: int = 0
    pretrain: PretrainSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Describes a table. `holdout` is the share of training videos that thresholds and the best weights are chosen
    on."""

    title: str
    table: str
    protocol: str
    preset: str
    sets: tuple[SetSpec, ...]
    rows: tuple[RowSpec, ...]
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    holdout: float = 0.05
    narrow: NarrowSpec = NarrowSpec()


def recipe_names() -> list[str]:
    """List the recipes of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if "table:" in path.read_text(encoding="utf-8"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe of the package by name, or a YAML file. Raises InputError that names what can't be used."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.exists():
        raise InputError(f"recipe {name!r} is not known: use one of {', '.join(recipe_names())}, or a YAML file")
    found = _fill(Recipe, read_yaml(path, "recipe", "give a YAML file"), str(path))
    sets = tuple(
        _fill(
            SetSpec,
            {
                **part,
                "train": _fill(DataSpec, part.get("train"), path),
                "test": _fill(DataSpec, part.get("test"), path),
            },
            path,
        )
        for part in _list(found, "sets", path)
    )
    rows = tuple(_fill(RowSpec, part, path) for part in _list(found, "rows", path))
    narrow = _narrow(found.get("narrow", {}), [spec.name for spec in sets], [row.name for row in rows], path)
    recipe = Recipe(**{**found, "sets": sets, "rows": rows, "narrow": narrow})
    if not 0 < recipe.holdout < 1:
        raise InputError(f"recipe {path}: holdout must lie in 0..1, got {recipe.holdout}: 0.05 is usual")
    for root in roots_of(recipe.sets, narrow.pretrain):
        # folders of synthetic data are removed and written under this name
        if not is_name(root) or root == ".." or "\0" in root or Path(root).name != root:
            raise InputError(
                f"recipe {path}: root must be a folder's name below --data, got {shown(root)}: MUSIC is one"
            )
    _check_names("set", [spec.name for spec in sets], path)
    _check_names("row", [row.name for row in rows], path)
    return recipe


def roots_of(sets: Iterable[SetSpec], pretrain: PretrainSpec | None) -> list[str]:
    """List the data sets' folders that a run reads."""
    roots = {part.root for spec in sets for part in (spec.train, spec.test)}
    return sorted(roots | ({pretrain.root} if pretrain is not None else set()))


def slug(name: str) -> str:
    """Turn a row's or set's name into a folder's name."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name.lower())


def _check_names(kind: str, names: list[str], path: Path) -> None:
    taken: dict[str, str] = {}
    for name in names:
        if not is_name(name):
            raise InputError(f"recipe {path}: {kind} {shown(name)} holds control characters or is blank: rename it")
        folder = slug(name)
        if not folder or folder in RESERVED or re.search(r"-seed\d+$", folder):
            raise InputError(f"recipe {path}: a {kind} called {name!r} would use another's folder: rename it")
        if folder in taken:
            raise InputError(f"recipe {path}: the {kind}s {taken[folder]!r} and {name!r} share a folder: rename one")
        taken[folder] = name


def _narrow(values: Any, sets: list[str], rows: list[str], path: Path) -> NarrowSpec:
    found: NarrowSpec = _fill(NarrowSpec, values, path)
    for kind, names, known in (("set", found.sets, sets), ("row", found.seeds, rows)):
        for name in names:
            if name not in known:
                raise InputError(f"recipe {path}: narrow names the {kind} {name!r}: use some of {', '.join(known)}")
    for name, count in found.seeds.items():
        if count < 1:
            raise InputError(f"recipe {path}: seeds of {name} must be at least 1, got {count!r}: give a whole number")
    pretrain = None if found.pretrain is None else _fill(PretrainSpec, found.pretrain, path)
    return replace(found, sets=tuple(found.sets), pretrain=pretrain)


def _list(values: Any, key: str, path: Path) -> list[Any]:
    found = values[key]
    if not isinstance(found, list) or not found or not all(isinstance(part, dict) for part in found):
        raise InputError(f"recipe {path}: {key} must be a list of entries, got {shown(found)}")
    return found


def _fill(kind: Any, values: Any, path: object) -> Any:
    """Make the dataclass from a mapping, or for a recipe check its mapping."""
    if not isinstance(values, dict):
        raise InputError(f"recipe {path}: {kind.__name__} must be a mapping, got {shown(values)}")
    known = {entry.name: entry for entry in fields(kind)}
    for name in values:
        if name not in known:
            raise InputError(f"recipe {path}: entry {shown(name)} is not known: use {', '.join(known)}")
    for name, entry in known.items():
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"recipe {path}: entry {name!r} is missing from a {kind.__name__}")
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not fits(value, hints[name]):
            raise InputError(f"recipe {path}: {name} must be {said(hints[name])}, got {shown(value)}")
    try:
        return values if kind is Recipe else kind(**values)
    except ValueError as error:
        raise InputError(f"recipe {path}: {error}") from None
