"""The environments that make and `.ci/run` set up: which Python is taken, and what the matrix tries on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests import conftest, matrix, sharing
from tests.commands import ROOT
from tests.patience import until
from tests.processes import is_running

# pytest without its plugins, which takes a fraction of the time to start
BARE = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
# what pyenv leaves on the PATH for a version that is not chosen
SHIM = "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n"


def command(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def python(path: Path) -> Path:
    return command(path, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


def environment(*arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    searched = f"{path}:/usr/bin:/bin" if path else os.environ["PATH"]
    given = os.environ | {"PATH": searched}
    return subprocess.run(
        ["bash", ROOT / ".ci" / "environment", *map(str, arguments)], capture_output=True, text=True, env=given
    )


def test_a_python_that_has_all_is_taken_as_it_is(tmp_path: Path) -> None:
    mine = python(tmp_path / "mine")
    done = environment(tmp_path / "made", "dev", mine, "pytest numpy")
    assert done.returncode == 0 and done.stdout == f"{mine}\n" and not (tmp_path / "made").exists(), done.stderr


def test_what_does_not_start_is_passed_over_or_named(tmp_path: Path) -> None:
    command(tmp_path / "python3", SHIM)
    command(tmp_path / "python3.13", SHIM)
    good = python(tmp_path / "python3.12")
    done = environment(tmp_path / "made", "dev", "", "pytest", path=tmp_path)
    assert done.stdout == f"{good}\n", done.stderr
    done = environment(tmp_path / "made", "dev", tmp_path / "python3", "pytest")
    assert done.returncode == 1 and "does not start: name another interpreter" in done.stderr


def test_a_folder_is_made_once_and_a_strange_one_is_never_cleared(tmp_path: Path) -> None:
    mine, folder = python(tmp_path / "mine"), tmp_path / "made"
    # nothing to install stands in for the extras: pip is not asked for anything
    (folder / "bin").mkdir(parents=True)
    (folder / "mine.txt").write_text("keep")
    command(
        folder / "bin" / "python", f'#!/bin/sh\ncase "$*" in *install*) exit 0;; esac\nexec "{sys.executable}" "$@"\n'
    )
    first = environment(folder, "runtime", mine)
    assert first.returncode == 0 and first.stdout == f"{folder}/bin/python\n", first.stderr
    assert "Installing avgn[runtime] into" in first.stderr and (folder / "mine.txt").read_text() == "keep"
    again = environment(folder, "runtime", mine)
    assert again.stdout == first.stdout and again.stderr == ""
    # another setup.py, as another extra, is installed anew
    assert "Installing avgn[live] into" in environment(folder, "live", mine).stderr


def test_pythons_that_start_are_found_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path / "python3.13", SHIM)
    command(tmp_path / "python3.10", "#!/bin/sh\necho 3.9.1\n")
    python(tmp_path / "python3")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    own = ".".join(map(str, sys.version_info[:3]))
    assert matrix.find_pythons() == {own: sys.executable}


def test_every_requirement_for_running_has_a_lower_bound() -> None:
    wanted = matrix.bounds()
    assert {"numpy", "av", "opencv-python-headless", "onnxruntime", "jsonargparse", "openvino"} <= set(wanted)
    assert all(bound.startswith(">=") for bound in wanted.values()), wanted


def test_every_list_of_tests_names_what_is_there() -> None:
    quick = re.search(r"^QUICK = ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert quick is not None
    listed = quick.group(1).replace("\\\n", " ").split()
    listed += matrix.files_of_tests((*matrix.SHORT, *matrix.MORE)) + list(sharing.LONG)
    listed += [f"tests/{name.partition('::')[0]}" for name in conftest.ALONE]
    assert [name for name in listed if not (ROOT / name).exists()] == []
    for file, _, test in (name.partition("::") for name in conftest.ALONE):
        assert not test or f"def {test}" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


def test_releases_are_compared_as_numbers() -> None:
    assert (
        matrix._reaches("14.1.0", "14.1")
        and matrix._reaches("4.10.0.84", "4.9")
        and matrix._reaches("2025.0.0", "2025.0")
    )
    assert not matrix._reaches("4.8.1.78", "4.10.0.84") and not matrix._reaches("14.0.1", "14.1")


def test_a_step_beyond_its_time_is_killed_with_what_it_started() -> None:
    # a child that holds its parent's output, in a process that has ended or hangs
    for parent in ("pass", "time.sleep(600)"):
        begin = time.monotonic()
        code = f"import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); {parent}"
        done = matrix.run([sys.executable, "-c", code], begin + 5)
        assert time.monotonic() - begin < 60 and done.returncode == (0 if parent == "pass" else 124), done
        assert ("ERROR: killed after 5 s" in done.stderr) == (parent != "pass")
        # the system ends a killed process in its own time
        until(partial(is_gone, int(done.stdout)))


def is_gone(pid: int) -> bool:
    return not is_running(pid)


def test_the_table_shows_both_ends_and_failures() -> None:
    low = matrix.Trial(
        python="3.10.1", end="lowest", versions={"av": "14.1.0"}, steps={"demo": "ok", "tests": "FAILED x"}
    )
    high = matrix.Trial(python="3.10.1", end="newest", versions={"av": "17.1.0"}, steps={"demo": "ok", "tests": "ok"})
    text = matrix.table([low, high])
    assert "| av | 14.1.0 ... 17.1.0 |" in text and "| tests | FAILED x ... ok |" in text
    assert high.passed and not low.passed


SHARED = """
import os, pathlib, signal, time
def test_first():
    # every file waits until both processes are at work
    here = pathlib.Path({done!r}).parent
    (here / f"process-{{os.getpid()}}").touch()
    until = time.monotonic() + 60
    while len(list(here.glob("process-*"))) < 2: assert time.monotonic() < until
    {action}
def test_second(): open({done!r}, "a").write("{name} second\\n")
"""


@pytest.mark.parametrize("dies", [False, True])
def test_processes_share_the_files_of_tests_and_a_dead_one_fails_the_suite(tmp_path: Path, dies: bool) -> None:
    ran = tmp_path / "ran"
    for name in "abcdef":
        action = "os.kill(os.getpid(), signal.SIGKILL)" if dies and name == "b" else "pass"
        (tmp_path / f"test_{name}.py").write_text(SHARED.format(action=action, done=str(ran), name=name))
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "suite", sys.executable, "not soak and not alone", "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env=BARE | {"WORKERS": "2", "MINUTES": "2"},
    )
    assert done.returncode == (137 if dies else 0), done.stdout + done.stderr
    # a file is run by one of them, as a whole
    expected = [f"{name} second" for name in "abcdef" if not (dies and name == "b")]
    assert sorted(ran.read_text().splitlines()) == expected
    assert dies == ("was killed" in done.stderr)
    if not dies:
        counts = [int(n) for n in re.findall(r"(\d+) passed", done.stdout)]
        assert sum(counts) == 12 and len(counts) == 2 and min(counts) > 0, done.stdout


TIMED = """
import pathlib, pytest
def fails_first(name, times):
    log = pathlib.Path({log!r}) / name
    tried = len(log.read_text()) if log.exists() else 0
    log.write_text("x" * (tried + 1))
    assert tried >= times
@pytest.mark.alone
@pytest.mark.parametrize("name", [*"abcd"[:{count}]])
def test_clock(name): fails_first(name, {times})
@pytest.mark.alone
def test_other(): fails_first("other", 0)
def test_shared(): fails_first("shared", {shared})
"""


@pytest.mark.parametrize(
    ("count", "times", "shared", "passes", "tried"),
    [
        pytest.param(2, 1, 0, True, 2, id="once"),
        pytest.param(1, 2, 0, False, 2, id="always"),
        pytest.param(4, 1, 0, False, 1, id="many"),
        pytest.param(1, 0, 1, False, 1, id="not alone"),
    ],
)
def test_what_failed_alone_is_tried_once_more_and_named(
    count: int, times: int, shared: int, passes: bool, tried: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (tmp_path / "test_timed.py").write_text(TIMED.format(log=str(log), count=count, times=times, shared=shared))
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "suite", sys.executable, "not soak", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env=BARE | {"WORKERS": "1"},
    )
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    # nothing else is tried again
    assert (log / "a").read_text() == "x" * tried and len((log / "other").read_text()) == 1
    assert len((log / "shared").read_text()) == 1
    said = done.stderr.partition("PASSED ONLY AT THE SECOND TRY:\n")[2]
    assert said.count("test_clock[") == (count if passes else 0) and ("test_clock[a]" in said) == passes


def test_a_suite_that_hangs_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "test_hangs.py").write_text("import time\ndef test(): time.sleep(600)\n")
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "suite", sys.executable, "not soak and not alone", "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env=BARE | {"WORKERS": "2", "MINUTES": "0.1"},
    )
    assert done.returncode == 124 and "was killed: after 0.1 minutes" in done.stderr
