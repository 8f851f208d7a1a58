"""What measurements say of the machine and the code that they were made with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import avgn
from avgn.machine import commit, measured_on


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_is_that_of_the_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet")
    package = tmp_path / "avgn" / "__init__.py"
    installed = tmp_path / ".venv" / "lib" / "site-packages" / "avgn" / "__init__.py"
    for file in (package, installed):
        file.parent.mkdir(parents=True)
        file.touch()
    git(tmp_path, "add", "avgn")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    head = git(tmp_path, "rev-parse", "--short", "HEAD")
    monkeypatch.setattr(avgn, "__file__", str(package))
    assert commit() == head
    package.write_text("changed")
    assert commit() == f"{head}-dirty"
    # an environment inside of another project
    monkeypatch.setattr(avgn, "__file__", str(installed))
    assert commit() == "unknown"


def test_a_record_says_what_it_was_measured_on() -> None:
    facts = measured_on()
    assert facts["versions"]["avgn"] == avgn.__version__ and facts["cores"] >= facts["usable_cores"] >= 1
