from __future__ import annotations

from pathlib import Path

import pytest

from avgn.runtime import Bundle, Localizer
from tests.runtime.graphs import write_bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tones")


@pytest.fixture(scope="session")
def localizer(bundle_path: Path) -> Localizer:
    return Localizer.load(Bundle.load(bundle_path), threads=1)
