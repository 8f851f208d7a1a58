"""Runs that are stopped, started again, started twice or with other options."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

from avgn.reproduce import RunOptions, read_recipe, reproduce
from avgn.reproduce.output import LOCK
from avgn.reproduce.recipe import FOLDER
from avgn.runtime.errors import InputError
from tests.commands import refused
from tests.processes import children, is_running

RUN = ("reproduce", "table2", "--dry-run", "--sets", "MUSIC-Duet", "--rows", "LVS", "--bootstrap", "0")


def descendants(pid: int) -> set[int]:
    """A process and all that it started, whatever started them in turn."""
    return {pid}.union(*(descendants(child) for child in children(pid)))


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone at the end, whatever the test found."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        for each in descendants(child.pid):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        child.wait()


def wait_for(child: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    limit = time.monotonic() + 400
    while not happened():
        assert child.poll() is None and time.monotonic() < limit, child.stderr and child.stderr.read()
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in Linux's /proc")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process_and_goes_on(kind: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # long enough to be caught amid the training
    command = [sys.executable, "-m", "avgn", *RUN[:2], "--steps", "5000", *RUN[3:], "--narrow", "true"]
    command += ["--scenes", "24", "--test-scenes", "4", "--visual-weights", "random", "--batch-size", "4"]
    command += ["--parallel", "2", "--seeds", "2", "--output", str(out)]
    losses = [out / "music-duet" / name / "losses.jsonl" for name in ("lvs", "lvs-seed1")]
    with started(command) as child:
        wait_for(child, lambda: all(path.is_file() and path.stat().st_size for path in losses))
        workers = descendants(child.pid)
        assert len(workers) >= 3
        child.send_signal(kind)
        child.communicate(timeout=180)
        assert child.returncode == (-kind if kind == signal.SIGKILL else 143)
        deadline = time.monotonic() + 60
        while (left := [pid for pid in workers if is_running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left
    if kind == signal.SIGTERM:
        return
    # no checkpoint was written yet: the training begins anew, in the same folder
    before = losses[0].stat().st_mtime_ns
    with started(command) as child:
        wait_for(child, lambda: losses[0].is_file() and losses[0].stat().st_mtime_ns > before)


def options(output: Path, **changed: Any) -> RunOptions:
    usual = RunOptions(output=output, dry_run=True, sets=("MUSIC-Duet",), rows=("LVS",), bootstrap=0)
    return replace(usual, **changed)


def test_an_output_belongs_to_one_run_with_one_set_of_options(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, recipe = tmp_path / "out", read_recipe("table2")
    reproduce(recipe, options(out))
    kept = (out / "outcome.json").read_bytes()
    (tmp_path / "MUSIC").mkdir()
    for changed, name in (
        ({"seed": 7}, "seed"),
        ({"training": {"learning_rate": 0.5}}, "training"),
        ({"bootstrap": 10, "model": {"dim": 32}}, "bootstrap and model"),
        ({"dry_run": False, "data": str(tmp_path)}, "data and dry_run"),
    ):
        with pytest.raises(InputError, match=f"holds a run with another {name}: choose another --output"):
            reproduce(recipe, replace(options(out), **changed))
    with pytest.raises(InputError, match="another recipe"):
        reproduce(read_recipe("table1"), replace(options(out), sets=()))
    with filelock.FileLock(out / LOCK), pytest.raises(InputError, match="another run is writing to"):
        reproduce(recipe, options(out))
    assert (out / "outcome.json").read_bytes() == kept
    # what was trained stands; a row may come to it, and one that was stopped before its end goes on
    caplog.set_level("INFO", "avgn")
    (out / "music-duet" / "lvs" / "scores.json").unlink()
    (out / "music-duet" / "lvs" / "config.json").unlink()
    outcome = reproduce(recipe, options(out, rows=("LVS", "EZ-VSL")))
    assert [row["row"] for row in outcome["sets"][0]["rows"]][::3] == ["LVS", "EZ-VSL"]
    assert {row["row"]: row["seconds"]["0"]["training"] is None for row in outcome["sets"][0]["rows"]}[
        "EZ-VSL"
    ] is False
    assert "training LVS" in caplog.text and "training EZ-VSL" in caplog.text


def test_what_only_scoring_would_find_is_found_first(tmp_path: Path) -> None:
    text = (FOLDER / "table2.yaml").read_text(encoding="utf-8")
    own = tmp_path / "own.yaml"
    for old, new, message in (
        ("protocol: source-wise", "protocol: sourcewise", "protocol 'sourcewise' is not known"),
        ("importer: music-duet", "importer: music", "importer 'music' is not known"),
        ("root: MUSIC,", "root: MUSIK,", "nothing can be made up for root 'MUSIK'"),
    ):
        assert old in text
        own.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            reproduce(read_recipe(str(own)), options(tmp_path / "o"))
    with pytest.raises(InputError, match="bootstrap must be at least 0, got -1"):
        options(tmp_path / "o", bootstrap=-1)
    with pytest.raises(InputError, match="is no folder: give the one that holds MUSIC"):
        reproduce(read_recipe("table2"), options(tmp_path / "o", dry_run=False, data=str(tmp_path / "none")))
    assert not (tmp_path / "o").exists()
    assert "is a folder" in refused(*RUN, "--output", tmp_path / "o", "--json", tmp_path)
