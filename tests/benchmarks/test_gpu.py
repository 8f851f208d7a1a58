"""`make gpu` as far as a machine without a GPU can show: its plan, limits, skips, and the record of every step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from avgn.cli import COMMANDS
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.errors import InputError
from benchmarks import gpu
from benchmarks.gpu import choose, fit, listing, merge, run_steps
from benchmarks.gpu_steps import ROOT, Step, plan

NONE = pytest.mark.skipif(not isinstance(find_gpu(), str), reason="this machine has a GPU")


def make_gpu(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@NONE
def test_without_a_gpu_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    done = make_gpu("--output", str(tmp_path / "o.json"), "--work", str(tmp_path / "w"))
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: the checks of make gpu need an NVIDIA GPU and {find_gpu()}: run them where there is"
    )


def test_a_dry_run_lists_steps_limits_and_what_is_missing(tmp_path: Path) -> None:
    done = make_gpu("--dry-run", "--output", str(tmp_path / "o.json"))
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    lines = done.stdout.splitlines()
    assert len(lines) == len(plan(tmp_path)) + 2 and lines[1].startswith("kernel tests")
    assert any("tensorrt: build" in line and "skipped: tensorrt is not installed" in line for line in lines)
    assert "of --minutes 8 (480 s)" in lines[-1]


def test_only_chooses_by_the_beginnings_of_names(tmp_path: Path) -> None:
    assert [step.name for step in choose(plan(tmp_path), "training, aoti")] == [
        "aoti: build tiny",
        "aoti: build resnet18",
        "training step: compile",
        "training step",
        "aoti: verify, time",
        "aoti: contract",
    ]
    with pytest.raises(InputError, match="--only dance: no step begins so, choose among these: kernel tests, "):
        choose(plan(tmp_path), "dance")
    assert make_gpu("--dry-run", "--only", "dance").returncode == 2


def python(name: str, code: str, **options: Any) -> Step:
    return Step(name=name, command=(sys.executable, "-c", code), **({"seconds": 20} | options))


def pytest_of(file: Path) -> Step:
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), f"--junit-xml={file}.xml")
    return Step(name=file.stem, command=command, report=Path(f"{file}.xml"), seconds=60)


def test_every_step_is_written_down_and_none_stops_the_others(tmp_path: Path) -> None:
    good, broken, stale = (tmp_path / f"{name}.json" for name in ("good", "broken", "stale"))
    stale.write_text('{"of": "yesterday"}')
    test = tmp_path / "test_three.py"
    test.write_text(
        "import pytest\ndef test_one(): pass\n@pytest.mark.skip(reason='no such engine')\ndef test_two(): pass\n"
    )
    skipped = tmp_path / "test_none.py"
    skipped.write_text("import pytest\n@pytest.mark.skip(reason='no CUDA')\ndef test_two(): pass\n")
    wrong = tmp_path / "test_wrong.py"
    wrong.write_text("def test_sum(): assert 1 + 1 == 3\n")
    steps = [
        python("good", f"open({str(good)!r}, 'w').write('[1, 2]')", result=good),
        python("fails", f"import sys; print('at {ROOT}/x'); sys.exit('it broke')"),
        python("broken", f"open({str(broken)!r}, 'w').write('{{')", result=broken),
        python("stale", "", result=stale),
        python("slow", "import time; time.sleep(60)", seconds=0.5),
        Step(name="missing", command=(str(tmp_path / "nothing"),), seconds=5),
        python("told", "import os, sys; sys.exit(os.environ['TOLD'] != 'yes')", environment={"TOLD": "yes"}),
        python("lacks", "", needs=("no_such_module",)),
        python("refused", "", unless=lambda: "this chip is too old"),
        python("orphan", "", after=tmp_path / "never.json"),
        *map(pytest_of, (test, skipped, wrong)),
    ]
    output = tmp_path / "record.json"
    record = run_steps(steps, 5, {"gpu": "a card"}, output)
    assert record == json.loads(output.read_text())
    assert next(iter(record)) == "summary" and list(record["summary"]) == [step.name for step in steps]
    assert record["machine"]["gpu"] == "a card" and record["versions"]["torch"]
    rows = record["steps"]
    assert {name: row["why"] for name, row in rows.items() if row["outcome"] == "failed"} == {
        "fails": "exit status 1",
        "broken": "broken.json was not written",
        "stale": "stale.json was not written",
        "slow": "stopped after 0.5 s",
        "missing": "did not start: No such file or directory",
        "test_none": "no test ran",
        "test_wrong": "exit status 1",
    }
    assert record["failed"] == [name for name, row in rows.items() if row["outcome"] == "failed"]
    assert {name: row["why"] for name, row in rows.items() if row["outcome"] == "skipped"} == {
        "lacks": "no_such_module is not installed",
        "refused": "this chip is too old",
    }
    assert rows["orphan"]["outcome"] == "left out" and rows["good"]["result"] == [1, 2]
    # what it said is kept, without where the repository lies
    assert rows["fails"]["said"] == ["at ./x", "it broke"]
    assert rows["test_three"]["tests"] == {
        "passed": 1,
        "failed": 0,
        "skipped": 1,
        "reasons": ["no such engine"],
        "failures": [],
    }
    assert rows["test_wrong"]["tests"]["failures"] == ["test_sum: assert (1 + 1) == 3"]
    assert record["summary"]["lacks"] == "skipped in 0 s: no_such_module is not installed"


def test_minutes_end_a_step_and_leave_out_those_after_it(tmp_path: Path) -> None:
    steps = [python("long", "import time; time.sleep(60)"), python("late", "")]
    begin = time.monotonic()
    record = run_steps(steps, 6 / 60, {}, tmp_path / "record.json")
    assert time.monotonic() - begin < 15 and record["failed"] == ["long"]
    assert record["steps"]["late"]["why"] == "--minutes 0.1 are over"


def test_what_is_not_timed_runs_beside_others_and_before_the_rest(tmp_path: Path) -> None:
    meet = (
        "import pathlib, sys, time; here, there = map(pathlib.Path, {!r}); here.touch()\n"
        "while not there.exists(): time.sleep(0.01)"
    )
    pair = [str(tmp_path / name) for name in ("one", "two")]
    steps = [
        python("first", "import time; time.sleep(9)", beside=True, seconds=1),
        python("timed", f"import os, sys; sys.exit(not os.path.exists({pair[1]!r}))"),
        # each of them waits for the other
        python("one", meet.format(pair), beside=True),
        python("two", meet.format(pair[::-1]), beside=True),
    ]
    record = run_steps(steps, 5, {}, tmp_path / "record.json")
    assert record["failed"] == ["first"] and list(record["steps"]) == ["first", "timed", "one", "two"]


def test_an_interrupt_ends_what_runs_beside_others(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    long = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(99)"
    code = (
        "from pathlib import Path\n"
        "from benchmarks.gpu import run_steps\n"
        "from tests.benchmarks.test_gpu import python\n"
        f"steps = [python('long', {long!r}, beside=True, seconds=99)]\n"
        f"run_steps(steps, 5, {{}}, Path({str(tmp_path / 'o.json')!r}))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (mark.is_file() and mark.read_text()):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_whatever_ends_it_leaves_what_was_measured(tmp_path: Path) -> None:
    """Killed in the middle of the second step: the first one's row is there, and no process of the second is."""
    output = tmp_path / "record.json"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from benchmarks.gpu import run_steps\n"
        "from tests.benchmarks.test_gpu import python\n"
        "steps = [python('one', ''), python('two', 'import time; time.sleep(99)')]\n"
        f"run_steps(steps, 5, {{}}, Path({str(output)!r}))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while "two ..." not in child.stdout.readline():
        assert child.poll() is None
    child.kill()
    child.wait()
    assert json.loads(output.read_text())["summary"]["one"].startswith("passed in ")


def test_a_record_stays_below_a_megabyte() -> None:
    rows = [
        {"step": f"s{at}", "outcome": "passed", "why": None, "seconds": 1.0, "result": ["x" * 1000] * 110}
        for at in range(12)
    ]
    rows.append({"step": "huge", "outcome": "passed", "why": None, "seconds": 1.0, "result": "y" * 5_000_000})
    text = fit(merge({}, rows))
    record = json.loads(text)
    assert len(text) <= gpu.MOST_RECORD_BYTES and len(record["summary"]) == 13
    assert record["steps"]["huge"]["result"] == "5000002 bytes, left out"
    kept = [row["result"] for row in record["steps"].values() if isinstance(row["result"], list)]
    assert len(kept) >= 7


def test_the_plan_has_commands_and_files_that_exist(tmp_path: Path) -> None:
    steps = plan(tmp_path)
    timed = [step.name for step in steps if not step.beside]
    assert timed[:3] == ["host time of a kernel", "kernel times", "training step"]
    assert [step.name for step in steps][: len(steps) - len(timed)] == [step.name for step in steps if step.beside]
    for engine in ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx"):
        assert [step.name for step in steps if step.name.startswith(f"{engine}:")] == [
            f"{engine}: {what}" for what in ("build", "verify", "contract", "latency and throughput")
        ]
    # what a machine with PyTorch alone runs fits into the eight minutes, but for a little
    bare = [step for step in steps if not step.name.startswith(("onnxruntime", "tensorrt"))]
    first = max(step.seconds for step in bare if step.beside)
    assert first + sum(step.seconds for step in bare if not step.beside) <= 60 * gpu.MINUTES * 1.25
    assert listing(bare, gpu.MINUTES)[-1].endswith("of --minutes 8 (480 s)")
    for step in steps:
        words = list(step.command)
        if words[2] == "avgn":
            assert words[3] in COMMANDS, words
        if words[2].startswith("benchmarks."):
            assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), words
        for word in words:
            if word.startswith(("tests/", "benchmarks/")):
                file, _, name = word.partition("::")
                assert (ROOT / file).exists() and f"def {name}" in (ROOT / file).read_text(), word
