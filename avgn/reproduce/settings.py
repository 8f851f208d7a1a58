"""Defines what a row of a recipe is trained with, and the options of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avgn.reproduce.layouts import Sizes
from avgn.reproduce.recipe import Recipe, RowSpec, SetSpec
from avgn.runtime.errors import InputError

if TYPE_CHECKING:
    from avgn.config import Config
    from avgn.training import TrainConfig

SYNTHETIC = "synthetic"
# a dry run shows within a minute that everything runs
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
    data, None for the recipe's. A dry run trains for two steps on made-up scenes in the layouts of the data sets.

    `narrow` takes the recipe's narrow models, as synthetic data does by default. `seeds` runs make each row, None for
    as many as the recipe says. `parallel` rows are trained at a
    time, each on its share of the cores; results are the same but for rounding.
    """

    output: Path
    data: str = SYNTHETIC
    dry_run: bool = False
    narrow: bool | None = None
    sets: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    preset: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes | None = None
    seed: int = 0
    seeds: int | None = None
    jobs: int = 1
    parallel: int = 1
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("seeds", 1), ("bootstrap", 0)):
            count = getattr(self, name)
            if count is not None and count < least:
                raise InputError(f"{name} must be at least {least}, got {count}: give a larger number or leave it out")

    @property
    def is_made_up(self) -> bool:
        """Return whether scenes are rendered for the run."""
        return self.dry_run or self.data == SYNTHETIC

    @property
    def is_narrow(self) -> bool:
        """Return whether the recipe's narrow settings apply; a dry run has its own."""
        return not self.dry_run and (self.data == SYNTHETIC if self.narrow is None else self.narrow)


def settings(
    recipe: Recipe, spec: SetSpec, row: RowSpec, classes: tuple[str, ...], options: RunOptions, seed: int
) -> tuple[Config, TrainConfig]:
    """Return what a row is trained with. Raises InputError for wrong entries of a recipe or an option."""
    from avgn.config import preset
    from avgn.training import TrainConfig

    narrow = options.is_narrow
    name = options.preset or (recipe.narrow.preset if narrow else recipe.preset)
    model = recipe.model | (recipe.narrow.model if narrow else {}) | row.model | options.model
    training = recipe.training | (recipe.narrow.training if narrow else {}) | spec.training | row.training
    training |= options.training | {"seed": seed}
    if options.dry_run:
        model, training = model | DRY_MODEL, training | DRY_TRAINING
    try:
        return preset(name, classes=classes, **model), TrainConfig.from_options(**training)
    except (ValueError, TypeError) as error:
        raise InputError(f"{recipe.table}, row {row.name}: {error}") from None


def seeds(recipe: Recipe, row: RowSpec, options: RunOptions) -> list[int]:
    """Return the seeds whose mean a row is."""
    count = options.seeds or (recipe.narrow.seeds.get(row.name, 1) if options.is_narrow else 1)
    return list(range(options.seed, options.seed + count))
