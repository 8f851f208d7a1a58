"""What `compile` needs of a machine."""

from __future__ import annotations

import os
import shutil

from avgn.runtime.errors import InputError


def check_compiler(what: str = "compile", instead: str = "leave `compile` out") -> None:
    """Raise InputError where torch.compile would find no C++ compiler; `what` needs it, `instead` is the way out."""
    if shutil.which(_compiler()) is None:
        raise InputError(
            f"{what} needs a C++ compiler and {_compiler()!r} is not on the PATH: install g++, let CXX name another "
            f"one, or {instead}"
        )


def _compiler() -> str:
    return os.environ.get("CXX", "g++")
