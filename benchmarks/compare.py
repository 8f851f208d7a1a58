"""Runs a benchmark in a worktree of another revision and in this one, in turns, and prints the ratios of its numbers.

python -m benchmarks.compare startup --base REV [--rounds 2] [-- OPTIONS OF THE BENCHMARK]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]


class Refused(Exception):
    """Says in one sentence why the given arguments can't be used."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("benchmark", help="a module of benchmarks/ that takes --output")
    parser.add_argument("--base", required=True, metavar="REV", help="what to compare the working tree with")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.epilog = "what follows -- is handed to the benchmark"
    given = sys.argv[1:] if argv is None else argv
    cut = given.index("--") if "--" in given else len(given)
    args, options = parser.parse_args(given[:cut]), given[cut + 1 :]
    # a plain kill, too, must leave no worktree
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _compare(args.benchmark, args.base, args.rounds, options)
    except Refused as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare: interrupted", file=sys.stderr)
        return 130


def _compare(benchmark: str, base: str, rounds: int, options: list[str]) -> int:
    commit = _resolve(base)
    for folder, place in ((ROOT, "the working tree"), (None, base)):
        if not _has(benchmark, folder, commit):
            raise Refused(
                f"benchmark {benchmark!r} is not in {place}: give the name of a module of benchmarks/ with an --output"
            )
    if rounds < 1:
        raise Refused(f"--rounds must be at least 1, got {rounds}: 2 is the default")
    with worktree(commit) as other, tempfile.TemporaryDirectory() as scratch:
        found: dict[str, list[dict[str, float]]] = {"base": [], "here": []}
        for turn in range(rounds):
            for name, folder in (("base", other), ("here", ROOT)):
                output = Path(scratch) / f"{name}-{turn}.json"
                _run(benchmark, folder, output, options)
                found[name].append(dict(numbers(json.loads(output.read_text()))))
    for line in table(*found.values()):
        print(line)
    return 0


def _resolve(base: str) -> str:
    # the separator keeps a revision that begins with a dash from being an option
    done = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if done.returncode:
        raise Refused(f"revision {base!r} is not known: give a commit, a branch or a tag of this repository")
    return done.stdout.split()[-1]


def _has(benchmark: str, folder: Path | None, commit: str) -> bool:
    if not benchmark.isidentifier():
        return False
    paths = (f"benchmarks/{benchmark}.py", f"benchmarks/{benchmark}/__main__.py")
    if folder is not None:
        sources = [(folder / path).read_text() for path in paths if (folder / path).is_file()]
    else:
        sources = [_git("show", f"{commit}:{path}").stdout for path in paths]
    return any('add_argument("--output"' in source for source in sources)


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check out a commit into a temporary folder, which is removed afterwards whatever happens."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "base"
        try:
            done = _git("worktree", "add", "--detach", "--quiet", str(folder), commit)
            if done.returncode:
                raise Refused(f"git can't check out {commit}: {' '.join(done.stderr.split())}")
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))
            _git("worktree", "prune")


def _run(benchmark: str, folder: Path, output: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--output", str(output), *options]
    # a group of its own: it is ended here, with all its children, before its worktree goes
    child = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = child.communicate()
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if child.returncode or not output.is_file():
        last = (said.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise Refused(f"benchmark {benchmark} failed in {folder}: {last}")


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a JSON value with its path; entries of lists are counted."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield path, float(value)
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        yield from numbers(one, f"{path} / {key}" if path else str(key))


def table(base: list[dict[str, float]], here: list[dict[str, float]]) -> list[str]:
    """Format the medians over the turns, and their ratio, of every number that both sides have."""
    shared = [name for name in here[0] if all(name in one for one in (*base, *here))]
    width = max((len(name) for name in shared), default=0)
    lines = [f"{'':{width}}  {'base':>12} {'here':>12} {'here/base':>9}"]
    for name in shared:
        before, now = median(one[name] for one in base), median(one[name] for one in here)
        ratio = f"{now / before:9.3f}" if before else f"{'-':>9}"
        lines.append(f"{name:{width}}  {before:12.6g} {now:12.6g} {ratio}")
    return lines


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
