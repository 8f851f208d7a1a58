"""A server of the shipped bundle, one a module of tests; the packages of the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from avgn.runtime import Localizer
from avgn.runtime.web.site import write_site
from tests.web import node
from tests.web.browser import serving


@pytest.fixture(scope="session")
def tiny() -> Localizer:
    return Localizer.load("tiny", threads=1)


@pytest.fixture(scope="module")
def url(tiny: Localizer) -> Iterator[str]:
    """The address of a server without a token."""
    with serving(tiny) as address:
        yield address


@pytest.fixture(scope="session")
def packages() -> Path:
    """The WebAssembly runtime's files; with them, all packages of the client."""
    if reason := node.missing():
        pytest.skip(reason)
    return node.dist()


@pytest.fixture(scope="session")
def tiny_site(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site("tiny", tmp_path_factory.mktemp("tiny") / "site", runtime=packages)


@pytest.fixture(scope="session")
def world_site(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site("world", tmp_path_factory.mktemp("world") / "site", runtime=packages)
