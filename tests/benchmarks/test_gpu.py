"""`make gpu` as far as a machine without a GPU can show: its one sentence, and how steps and their files are merged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from avgn.cli import COMMANDS
from avgn.runtime.engines.gpu import find_gpu
from benchmarks.gpu import ROOT, Step, merge, plan, run_steps


@pytest.mark.skipif(not isinstance(find_gpu(), str), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--output",
        str(tmp_path / "o.json"),
        "--work",
        str(tmp_path / "w"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: the checks of make gpu need an NVIDIA GPU and {find_gpu()}: run them where there is"
    )


def python(name: str, code: str, **options: object) -> Step:
    return Step(name=name, command=(sys.executable, "-c", code), **options)  # type: ignore[arg-type]


def test_every_step_is_written_down_and_none_stops_the_others(tmp_path: Path) -> None:
    good, broken, stale = (tmp_path / f"{name}.json" for name in ("good", "broken", "stale"))
    stale.write_text('{"of": "yesterday"}')
    test = tmp_path / "test_three.py"
    test.write_text(
        "import pytest\ndef test_one(): pass\n@pytest.mark.skip(reason='no such engine')\ndef test_two(): pass\n"
    )
    skipped = tmp_path / "test_none.py"
    skipped.write_text("import pytest\n@pytest.mark.skip(reason='no CUDA')\ndef test_two(): pass\n")
    pytest_of = {
        file.stem: Step(
            name=file.stem,
            command=(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                str(file),
                f"--junit-xml={file}.xml",
            ),
            report=Path(f"{file}.xml"),
        )
        for file in (test, skipped)
    }
    rows = run_steps(
        [
            python("good", f"open({str(good)!r}, 'w').write('[1, 2]')", result=good),
            python("fails", f"import sys; print('at {ROOT}/x'); sys.exit('it broke')"),
            python("broken", f"open({str(broken)!r}, 'w').write('{{')", result=broken),
            python("stale", "", result=stale),
            python("slow", "import time; time.sleep(60)", seconds=0.5),
            Step(name="missing", command=(str(tmp_path / "nothing"),)),
            python("told", "import os, sys; sys.exit(os.environ['TOLD'] != 'yes')", environment={"TOLD": "yes"}),
            *pytest_of.values(),
        ]
    )
    record = merge({"gpu": "a card"}, rows)
    assert record == json.loads(json.dumps(record))
    assert record["machine"]["gpu"] == "a card" and record["versions"]["torch"]
    assert list(record["steps"]) == [row["step"] for row in rows]
    failures = {name: row["failure"] for name, row in record["steps"].items() if row["failure"]}
    assert failures == {
        "fails": "exit status 1",
        "broken": "broken.json was not written",
        "stale": "stale.json was not written",
        "slow": "stopped after 0.5 s",
        "missing": "did not start: No such file or directory",
        "test_none": "no test ran",
    }
    assert record["failed"] == list(failures)
    steps = record["steps"]
    assert steps["good"]["result"] == [1, 2]
    # what it said is kept, without where the repository lies
    assert steps["fails"]["said"] == ["at ./x", "it broke"]
    assert steps["test_three"]["tests"] == {"passed": 1, "failed": 0, "skipped": 1, "reasons": ["no such engine"]}


def test_the_plan_builds_verifies_and_times_both_kinds_of_engine(tmp_path: Path) -> None:
    steps = plan(tmp_path)
    names = [step.name for step in steps]
    for format in ("tensorrt", "tensorrt-rtx"):
        assert [name for name in names if name.startswith(f"{format}:")] == [
            f"{format}: {what}" for what in ("build", "verify", "contract", "latency and throughput")
        ]
    assert names[0] == "kernel tests" and names[-1] == "kernel times"
    # commands of this program exist, and so do the files that steps name
    for step in steps:
        words = list(step.command)
        if words[2] == "avgn":
            assert words[3] in COMMANDS, words
        for word in words:
            if word.startswith(("tests/", "benchmarks/")):
                assert (ROOT / word).exists(), word
