"""Runs the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.forks import Forks

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def avgn(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "avgn", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
        timeout=300,
    )


def forked(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a fork of a process that has imported the libraries, in a fraction of the time (Linux)."""
    if sys.platform != "linux":
        return avgn(*arguments, cwd=cwd)
    return forks().run([str(argument) for argument in arguments], cwd or Path.cwd(), timeout=300)


@cache
def forks() -> Forks:
    return Forks(ENVIRONMENT)


def refused(*arguments: object, status: int = 2) -> str:
    """Run a command that must fail; returns its one line on stderr."""
    done = forked(*arguments)
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("avgn: "), done.stderr
    return lines[0]
