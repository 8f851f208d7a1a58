"""Several pytest processes share one run: each takes the next file of tests that no other has taken.

A plugin (`-p tests.sharing`), for processes of the same arguments with the same new folder in AVGN_TESTS_SHARED. Nobody
leads them, so that one that dies ends with its own exit status, and the others go on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# those of minutes come first, so that no process is left alone with one
LONG = (
    "tests/export/test_precisions.py",
    "tests/reproduce/",
    "tests/training/test_processes.py",
    "tests/kernels/",
    "tests/baselines/",
    "tests/training/",
    "tests/export/",
    "tests/core/",
)


class Sharing:
    """Runs the tests of the files that this process was the first to name in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[str, bool] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: rank(file_of(item)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed or session.config.option.collectonly:
            return None
        ours = (item for item in session.items if self._is_ours(file_of(item)))
        item = next(ours, None)
        while item is not None:
            # which fixtures end with a test depends on what this process runs next
            following = next(ours, None)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def _is_ours(self, file: str) -> bool:
        if file not in self._taken:
            try:
                (self._folder / file.replace("/", "+")).mkdir()
                self._taken[file] = True
            except FileExistsError:
                self._taken[file] = False
        return self._taken[file]


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def rank(file: str) -> int:
    return next((number for number, start in enumerate(LONG) if file.startswith(start)), len(LONG))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Sharing(Path(os.environ["AVGN_TESTS_SHARED"])))
