"""Every command's help, which needs no more than the argument parser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from avgn.cli import COMMANDS
from avgn.cli.fields import field_docs
from avgn.config import Config
from avgn.data.augment import Augmentation
from avgn.data.mixing import Mixing
from avgn.systems import System
from avgn.training.config import TrainConfig
from tests.commands import ENVIRONMENT, avgn, forked


def test_help_lists_every_command() -> None:
    done = avgn("--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert avgn("--version").stdout.startswith("avgn ")


@pytest.mark.parametrize("command", [*COMMANDS, "figure qualitative", "figure embeddings"])
def test_every_command_has_help(command: str) -> None:
    done = forked(*command.split(), "--help")
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr


def test_help_of_training_explains_every_option() -> None:
    text = forked("train", "--help").stdout
    # an option, its value, and what stands behind both or on the next line
    found = re.findall(r"^  (?:-\w, )?--([\w.]+)(?: [^\s]+(?: \.\.\.)?)?(?:\s{2,}|\s*\n\s{10,})(.*)$", text, re.M)
    explained = {name: help for name, help in found}
    options = set(re.findall(r"^  (?:-\w, )?--([\w.]+)", text, re.M))
    settings = {"config", "output", *TrainConfig().to_dict()}
    entries = {f"model.{entry.name}" for entry in fields(Config) if entry.name not in ("name", "classes", "system")}
    assert options >= settings | entries and options == set(explained)
    silent = [name for name, help in explained.items() if not help or help.startswith(("(type", "(required"))]
    assert not silent


@pytest.mark.parametrize("kind", [TrainConfig, Mixing, Augmentation, Config, System])
def test_every_setting_has_a_docstring(kind: type[Any]) -> None:
    docs = field_docs(kind)
    assert [entry.name for entry in fields(kind)] == list(docs)
    assert all(text.endswith(".") for text in docs.values())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_reads_ends_quietly(option: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "avgn", option]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=120)
    finally:
        os.close(write)
    assert done.returncode == 0 and done.stderr == b""
