"""Every command's help, which needs no more than the argument parser."""

from __future__ import annotations

import pytest

from avgn.cli import COMMANDS
from tests.commands import avgn


def test_help_lists_every_command() -> None:
    done = avgn("--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert avgn("--version").stdout.startswith("avgn ")


@pytest.mark.parametrize("command", [*COMMANDS, "figure qualitative", "figure embeddings"])
def test_every_command_has_help(command: str) -> None:
    done = avgn(*command.split(), "--help")
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr
