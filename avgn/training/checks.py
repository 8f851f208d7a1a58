"""What is checked before a run begins: its settings, its folder, and the run that it goes on with."""

from __future__ import annotations

from pathlib import Path

import torch

from avgn.config import Config
from avgn.runtime.documents import read_json
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest
from avgn.training.compiling import check_compiler
from avgn.training.config import ENCODERS, NOTHING, TrainConfig
from avgn.training.module import FROZEN
from avgn.training.resting import is_frozen
from avgn.training.trainer import CHECKPOINTS, LOSSES
from avgn.weights import read_torch

CONFIG = "run.json"


def check_settings(config: Config, training: TrainConfig, validation: Manifest | None) -> None:
    """Raise InputError for what can't be trained, or not on this machine."""
    if config.tokens == "classifiers":
        from avgn.world.classes import find_classes

        find_classes(config.classes)
    if training.precision == "16-mixed" and not torch.cuda.is_available():
        raise InputError("`precision` 16-mixed needs a GPU: use bf16-mixed or 32-true on this machine")
    if training.compile:
        check_compiler()
    if validation is not None and not validation.items:
        raise InputError(f"validation manifest {validation.path} has no items: give another one, or none")
    if training.auxiliary > 0 and not config.kind.auxiliary:
        raise InputError(f"auxiliary heads are avgn's, the system is {config.kind.name}: leave `auxiliary` out")


def check_output(output: Path, *, resume: bool) -> None:
    """Raise InputError for a folder that holds something, unless the run goes on there."""
    if not resume and any(output.iterdir()):
        raise InputError(f"output folder {output} is not empty: choose another one, or pass `resume` to go on")


def check_resumed(output: Path, config: Config, training: TrainConfig) -> None:
    """Raise InputError unless the interrupted run trained the same of this configuration and can be read."""
    last = output / CHECKPOINTS / "last.ckpt"
    for written in (output / LOSSES, last, last.with_name("best.ckpt")):
        if written.is_symlink() or (written.exists() and written.stat().st_nlink > 1):
            raise InputError(f"{written} is a link, and a resumed run would write where it leads: put the file there")
    try:
        before = Config.from_dict(read_json(output / CONFIG, "run", "train anew"))
        state = read_torch(last)
        frozen = bool(state.get(FROZEN)) if isinstance(state, dict) else False
    except Exception as error:
        raise InputError(f"{last.parent} can't be resumed from ({error.__class__.__name__}): train anew") from None
    if before.classes != config.classes:
        raise InputError(
            f"{last} was trained on the classes {', '.join(before.classes)}, the manifest has "
            f"{', '.join(config.classes)}: they must be the same, in the same order"
        )
    changed = [name for name, value in before.to_dict().items() if config.to_dict()[name] != value]
    if changed:
        raise InputError(f"{last} was trained with another {', '.join(changed)}: resume with the same configuration")
    if frozen != is_frozen(config, training):
        raise InputError(f"{last} was trained with freeze {ENCODERS if frozen else NOTHING}: resume with the same")
