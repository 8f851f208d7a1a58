"""What `compile` needs of a machine."""

from __future__ import annotations

import os
import shutil

import torch

from avgn.runtime.errors import InputError
from avgn.training.config import TrainConfig


def compiles(training: TrainConfig) -> bool:
    """Whether a run compiles its halves: as it says, by default on a GPU where it can."""
    if training.compile is None:
        return (
            torch.cuda.is_available() and not training.checkpoint_activations and shutil.which(_compiler()) is not None
        )
    return training.compile


def check_compiler(what: str = "compile", instead: str = "leave --compile out") -> None:
    """Raise InputError where torch.compile would find no C++ compiler; `what` needs it, `instead` is the way out."""
    if shutil.which(_compiler()) is None:
        raise InputError(
            f"{what} needs a C++ compiler and {_compiler()!r} is not on the PATH: install g++, let CXX name another "
            f"one, or {instead}"
        )


def _compiler() -> str:
    return os.environ.get("CXX", "g++")
