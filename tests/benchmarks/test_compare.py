"""Comparing a benchmark with another revision: the numbers, what is refused, and that no worktree stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import compare

OPTIONS = """
import argparse, json, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--output")
parser.add_argument("--scale", type=float, default=1.0)
args = parser.parse_args()
"""
FAST = (
    OPTIONS
    + """
times = [VALUE * args.scale, 4.0]
pathlib.Path(args.output).write_text(json.dumps({"times": times, "machine": "m", "ok": True, "only": {"NAME": 1}}))
"""
)
SLOW = OPTIONS + "open('started', 'w').close(); time.sleep(120)"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two revisions of a benchmark, the second in the working tree alone."""
    folder = tmp_path / "repository"
    (folder / "benchmarks").mkdir(parents=True)
    shutil.copy(compare.__file__, folder / "benchmarks" / "compare.py")
    (folder / "benchmarks" / "__init__.py").touch()
    (folder / "benchmarks" / "fast.py").write_text(FAST.replace("VALUE", "2.0").replace("NAME", "before"))
    (folder / "benchmarks" / "slow.py").write_text(SLOW)
    (folder / "benchmarks" / "shared.py").write_text("SIDES = (1024, 2048)")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "benchmarks" / "fast.py").write_text(FAST.replace("VALUE", "3.0").replace("NAME", "now"))
    return folder


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.compare", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(folder.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_nothing_left(folder: Path) -> None:
    listed = subprocess.run(["git", "worktree", "list"], cwd=folder, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["repository"]


def test_shared_numbers_are_printed_with_their_ratios(repository: Path) -> None:
    child = command(repository, "fast", "--base", "HEAD")
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert [line.split()[-3:] for line in out.splitlines()[1:]] == [["2", "3", "1.500"], ["4", "4", "1.000"]]
    assert out.splitlines()[1].startswith("times / 0 ")
    assert_nothing_left(repository)


def test_options_of_the_benchmark_follow_two_dashes(repository: Path) -> None:
    child = command(repository, "fast", "--base", "HEAD", "--rounds", "1", "--", "--scale", "10")
    out, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert out.splitlines()[1].split()[-3:] == ["20", "30", "1.500"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fast", "--base", "nowhere"), "compare: revision 'nowhere' is not known: give a commit"),
        (("fast", "--base=--all"), "compare: revision '--all' is not known: give a commit"),
        (("none", "--base", "HEAD"), "compare: benchmark 'none' is not in the working tree: give the name"),
        (("shared", "--base", "HEAD"), "compare: benchmark 'shared' is not in the working tree: give the name"),
        (("../x", "--base", "HEAD"), "compare: benchmark '../x' is not in the working tree: give the name"),
        (("fast", "--base", "HEAD", "--rounds", "0"), "compare: --rounds must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], message: str, repository: Path) -> None:
    child = command(repository, *arguments)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 2 and said.startswith(message) and said.count("\n") == 1
    assert_nothing_left(repository)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_worktree(kind: signal.Signals, repository: Path) -> None:
    child = command(repository, "slow", "--base", "HEAD")
    limit = time.monotonic() + 60
    while not (list(repository.parent.glob("*/base/started"))) and time.monotonic() < limit:
        time.sleep(0.05)
    child.send_signal(kind)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130 and said == "compare: interrupted\n"
    assert_nothing_left(repository)
