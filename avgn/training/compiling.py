"""What `compile` needs of a machine."""

from __future__ import annotations

import os
import shutil

from avgn.runtime.errors import InputError


def check_compiler() -> None:
    """Raise InputError where torch.compile would find no C++ compiler."""
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise InputError(
            f"compile needs a C++ compiler and {name!r} is not on the PATH: install g++, let CXX name another one, "
            "or leave --compile out"
        )
