"""Runs as the process of one measurement: `python -m avgn.benchmarking.worker` reads a job and answers in one JSON
line.

Imports as little as it can before the job is known: what a job loads is part of what it measures.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

from avgn.benchmarking.process import one_sentence


def main() -> None:
    # libraries may print anything, so the answer goes to a descriptor of its own
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, name="avgn-parent", daemon=True).start()
    try:
        found = measure(job)
    except Exception as error:
        found = {"failure": one_sentence(error)}
    answer.write(json.dumps(found) + "\n")
    answer.close()


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Measure what a job asks for by its "kind"."""
    kind = job["kind"]
    if kind == "row":
        from avgn.benchmarking.timing import measure_row

        return measure_row(job)
    if kind == "accuracy":
        from avgn.benchmarking.accuracy import measure_accuracy

        return measure_accuracy(job)
    if kind == "operations":
        from avgn.benchmarking.operations import count_operations

        return count_operations(job)
    if kind == "peak":
        from avgn.benchmarking.peak import measure_peaks

        return {"peaks": measure_peaks(job["library"], job["threads"])}
    if kind == "stages":
        from avgn.benchmarking.stages import measure_stages

        return measure_stages(job)
    raise ValueError(f"job {kind!r} is not known")


def _end_with_parent() -> None:
    """Wait for the end of stdin, which comes with the end of whoever started us, and end the group."""
    # not sys.stdin: its lock would be held when the interpreter ends
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
