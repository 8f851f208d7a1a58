"""Measures how long the command line takes to start: every help, and `avgn localize` to its first result.

python -m benchmarks.startup --output benchmarks/results/startup.json [--bundle tiny] [--runs 9]

Wall and CPU seconds, and the peak of resident memory, of whole processes; files were read before. A bare interpreter
and one that imports NumPy are measured beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from avgn.cli import COMMANDS
from avgn.machine import measured_on, most_resident_mb

VIDEO_SECONDS = 6.0
# says when the first result is handed to the writer of JSON lines
FIRST_RESULT = """
import sys, time
from avgn.cli import main
from avgn.runtime.sinks.jsonl import JsonLinesWriter
write = JsonLinesWriter.__call__
def first(self, *given):
    write(self, *given)
    print(time.time(), file=sys.stderr)
    JsonLinesWriter.__call__ = write
JsonLinesWriter.__call__ = first
sys.exit(main(sys.argv[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), args.bundle, args.runs)
    print(json.dumps(record, indent=1))
    if args.output:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def measure(folder: Path, bundle: str, runs: int) -> dict[str, Any]:
    # here, so that this process stays small: it is what a child is forked from
    from avgn.scenes import SceneConfig
    from avgn.scenes.video import write_scene_video

    video = folder / "scene.mp4"
    config = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
    write_scene_video(video, seed=1, seconds=VIDEO_SECONDS, config=config)
    python = [sys.executable]
    commands = {
        "python": [*python, "-c", "pass"],
        "python, numpy": [*python, "-c", "import numpy"],
        "avgn --help": [*python, "-m", "avgn", "--help"],
        **{f"avgn {name} --help": [*python, "-m", "avgn", name, "--help"] for name in COMMANDS},
        f"avgn localize {bundle}": [*python, "-c", FIRST_RESULT, "localize", bundle, str(video), "--json"]
        + [str(folder / "results.jsonl")],
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    # in turns, so that a busy minute is everybody's; the first round fills the page cache
    for turn in range(runs + 1):
        for name, command in commands.items():
            found = run(command)
            if turn:
                rows[name].append(found)
    return {
        "machine": measured_on(),
        "video": f"640x360, {VIDEO_SECONDS:.0f} s",
        "runs": runs,
        "commands": {
            name: {key: _spread([row[key] for row in found]) for key in found[0]} for name, found in rows.items()
        },
    }


def run(command: list[str]) -> dict[str, float]:
    """Measure the seconds and MB of one process, with "first_result_seconds" if it says when its first result came."""
    begin, clock = time.time(), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        said = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - clock
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}: {said}")
    found = {"wall_seconds": wall, "cpu_seconds": used.ru_utime + used.ru_stime}
    if "-c" not in command or not said:
        return found
    # a child's peak is no less than what it was forked from, so only this one says something
    return {"first_result_seconds": float(said.split()[0]) - begin, **found, "peak_mb": most_resident_mb(used)}


def _spread(values: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (20, 50, 80)}


if __name__ == "__main__":
    main()
