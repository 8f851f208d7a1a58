"""Tries the lowest and the newest releases of all runtime dependencies on the Pythons of this machine.

`python -m tests.matrix` needs the standard library alone. In a fresh environment for each Python and each end it runs
the demo, the doctor and the tests of the runtime that meet the dependencies, prints a table and writes it as JSON. What
a trial runs beyond its limit of time is killed, with all that it started. Exit status 1: a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("runtime", "cpu", "openvino", "live", "serve")
TEST_PACKAGES = ("pytest>=8", "pytest-timeout", "hypothesis", "onnx", "scipy")
OLDEST = (3, 10)
ENDS = ("lowest", "newest")
# an interpreter that can't make environments or fetch packages is none
USABLE = "import ctypes, ensurepip, ssl, sys, venv, zlib; print(*sys.version_info[:3], sep='.')"
# what meets the dependencies: files and devices read and written, drawing, engines, imports
SHORT = ("av_features", "engine_contract", "imports", "media")
MORE = ("audio", "bundle", "containers", "devices", "downmix", "drawing", "localize", "orientation", "outputs", "times")
# every command's options, read by the argument parser at hand
HELP = "tests/cli/test_help.py"
TRIAL_SECONDS = 600
Version = tuple[int, ...]


@dataclass(kw_only=True)
class Trial:
    """One Python with one end of all dependencies: the versions that were installed and how each step ended."""

    python: str
    end: str
    versions: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return bool(self.steps) and all(result == "ok" for result in self.steps.values())


def files_of_tests(names: Sequence[str]) -> list[str]:
    """Return the files of tests that a trial runs, those of the runtime by their `names`."""
    return [*(f"tests/runtime/test_{name}.py" for name in names), HELP]


def parts(version: str) -> Version:
    """A release as numbers that can be compared."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def find_pythons() -> dict[str, str]:
    """Interpreters that really start, by version, the oldest first; one of each minor version."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted((Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions").glob("*/bin"))
    names = [sys.executable]
    for folder in folders:
        names += [str(file) for file in sorted(folder.glob("python3*")) if re.fullmatch(r"python3(\.\d+)?", file.name)]
    found: dict[Version, tuple[str, str]] = {}
    for name in dict.fromkeys(names):
        version = start(name)
        if version and parts(version) >= OLDEST:
            found.setdefault(parts(version)[:2], (version, name))
    return {version: name for _, (version, name) in sorted(found.items())}


def start(python: str) -> str | None:
    """The version that an interpreter says when it is started, None for one that is of no use (a bare shim)."""
    try:
        done = subprocess.run([python, "-c", USABLE], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def bounds() -> dict[str, str]:
    """The requirements of pyproject.toml for running: the package as pip takes it (with its extras), and its bounds."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted: dict[str, str] = {}
    texts, seen = [*project["dependencies"], f"avgn[{','.join(EXTRAS)}]"], set[str]()
    while texts:
        match = re.fullmatch(r"([\w.-]+(?:\[([\w,]+)\])?)(.*)", text := texts.pop(0))
        assert match, text
        if not text.startswith("avgn["):
            wanted[match.group(1)] = match.group(3)
            continue
        # an extra that takes others
        for extra in set(match.group(2).split(",")) - seen:
            seen.add(extra)
            texts += project["optional-dependencies"][extra]
    return wanted


def lowest(pip: Sequence[str], package: str, bound: str) -> str:
    """The oldest release within the bound that has a wheel for this Python."""
    name = package.partition("[")[0]
    done = run([*pip, "index", "versions", "--only-binary", ":all:", name], time.monotonic() + 60)
    listed = re.search(r"Available versions: (.*)", done.stdout)
    least = re.search(r">=([\d.]+)", bound)
    if listed is None or least is None:
        raise SystemExit(f"no releases of {name} were found: {done.stderr.strip()[-300:]}")
    fitting = [version for version in listed.group(1).split(", ") if _reaches(version, least.group(1))]
    return min(fitting, key=parts)


def _reaches(version: str, least: str) -> bool:
    length = max(len(parts(version)), len(parts(least)))
    padded = [(*parts(text), *([0] * (length - len(parts(text))))) for text in (version, least)]
    return padded[0] >= padded[1]


def try_end(python: str, version: str, end: str, folder: Path, selected: Sequence[str], seconds: float) -> Trial:
    """Make an environment and run all steps in it, within `seconds`; what a failing step said is its result."""
    trial, begin = Trial(python=version, end=end), time.monotonic()
    until = begin + seconds
    environment = folder / f"{version}-{end}"
    subprocess.run([python, "-m", "venv", environment], check=True, timeout=seconds)
    inside = str(environment / "bin" / "python")
    pip = [inside, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--upgrade", "pip", "setuptools"], until)
    wanted = bounds()
    pins = [
        f"{name}=={lowest(pip, name, bound)}" if end == "lowest" else name + bound for name, bound in wanted.items()
    ]
    done = run([*pip, "install", "--quiet", "--upgrade", "--prefer-binary", *pins, *TEST_PACKAGES], until)
    trial.steps["install"] = "ok" if done.returncode == 0 else _last_line(done)
    if done.returncode == 0:
        trial.versions = installed(inside, [name.partition("[")[0] for name in wanted])
        for name, command in steps(folder / "out", selected):
            done = run([inside, "-m", *command], until)
            trial.steps[name] = "ok" if done.returncode == 0 else _last_line(done)
            if done.returncode:
                print(done.stdout[-6000:], done.stderr[-3000:], file=sys.stderr)
    trial.seconds = round(time.monotonic() - begin, 1)
    shutil.rmtree(environment)
    return trial


def steps(output: Path, selected: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, module and arguments) of what is run in each environment."""
    yield "demo", ["avgn", "demo", "--output", str(output)]
    yield "doctor", ["avgn", "doctor"]
    yield "tests", ["pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not soak and not alone", *selected]


def installed(python: str, names: Sequence[str]) -> dict[str, str]:
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, found.stdout.split(), strict=True))


def run(command: Sequence[str], until: float) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout; at `until` (time.monotonic) it is killed, with the processes that it started."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    begin = time.monotonic()
    # files: a pipe ends only when the last process that holds it has ended
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, env=environment, start_new_session=True)
        try:
            status = process.wait(max(0.1, until - begin))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
    if status is None:
        return subprocess.CompletedProcess(
            command, 124, said[0], f"{said[1]}\nERROR: killed after {time.monotonic() - begin:.0f} s"
        )
    return subprocess.CompletedProcess(command, status, *said)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("ERROR", "FAILED", "BROKEN", "E  "))]
    return " ".join((telling or lines or ["no output"])[-1].split())[:200]


def table(trials: Sequence[Trial]) -> str:
    """Markdown: a dependency per row, for each Python the lowest and the newest release, and at the end the results."""
    pythons = list(dict.fromkeys(trial.python for trial in trials))
    names = list(dict.fromkeys(name for trial in trials for name in trial.versions))
    lines = [
        "| | " + " | ".join(f"Python {python}" for python in pythons) + " |",
        "|---|" + "---|" * len(pythons),
    ]
    for name in names:
        lines.append(_row(name, pythons, {(t.python, t.end): t.versions.get(name, "-") for t in trials}))
    for step in dict.fromkeys(step for trial in trials for step in trial.steps):
        lines.append(_row(step, pythons, {(t.python, t.end): t.steps.get(step, "-") for t in trials}))
    return "\n".join(
        [*lines, "", "Lowest: the oldest release within the bounds of pyproject.toml with a wheel for that Python."]
    )


def _row(name: str, pythons: Sequence[str], cells: dict[tuple[str, str], str]) -> str:
    both = (" ... ".join(cells[python, end] for end in ENDS if (python, end) in cells) for python in pythons)
    return f"| {name} | {' | '.join(both)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="the oldest Python with the lowest, the newest with the newest"
    )
    parser.add_argument("--pythons", help="minor versions, as 3.10,3.13; by default all from 3.10 on")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--tests", nargs="+", help="files of tests, by default those that meet the dependencies")
    parser.add_argument("--seconds", type=float, default=TRIAL_SECONDS, help="limit of each trial (%(default)s)")
    args = parser.parse_args(argv)
    names = SHORT if args.short else (*SHORT, *MORE)
    selected = args.tests or files_of_tests(names)
    pythons = find_pythons()
    if args.pythons:
        pythons = {v: name for v, name in pythons.items() if v.rpartition(".")[0] in args.pythons.split(",")}
    if not pythons:
        raise SystemExit("no Python >= 3.10 with venv and ssl was found")
    versions = list(pythons)
    plan = [(versions[0], "lowest"), (versions[-1], "newest")]
    if not args.short:
        plan = [(version, end) for version in versions for end in ENDS]
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="avgn-matrix-") as folder:
        for version, end in plan:
            print(f"Python {version} ({pythons[version]}) with the {end} dependencies", file=sys.stderr, flush=True)
            trials.append(try_end(pythons[version], version, end, Path(folder), selected, args.seconds))
            print(f"  {trials[-1].steps}, {trials[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    print(table(trials))
    if args.output:
        rows: list[dict[str, Any]] = [{**vars(trial), "passed": trial.passed} for trial in trials]
        args.output.write_text(json.dumps({"extras": EXTRAS, "tests": selected, "trials": rows}, indent=1) + "\n")
    return 0 if all(trial.passed for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
