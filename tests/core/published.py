"""The packages that hold published weights, where a machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avgn.encoders.packages import EFFICIENTNET, FACES, FOLDER, YAMNET, Packaged
from avgn.runtime.errors import InputError


def has(packaged: Packaged) -> bool:
    try:
        packaged.read()
    except InputError:
        return False
    return True


def needs(*packages: Packaged) -> pytest.MarkDecorator:
    """Skip where a package is neither installed nor its wheel in the folder that AVGN_WEIGHTS names."""
    missing = [each.package for each in packages if not has(each)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed (--no-deps is enough): {', '.join(missing)}")


def wheel(name: str) -> Path | None:
    """A wheel in the folder of weights, for code that only tests compare with."""
    folder = os.environ.get(FOLDER)
    return next(iter(sorted(Path(folder).glob(f"{name}-*.whl"))), None) if folder else None


ALL = (EFFICIENTNET, YAMNET, FACES)
