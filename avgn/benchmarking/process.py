"""Runs one measurement in a process of its own, so that its crash, memory and threads affect no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import avgn
from avgn.runtime.errors import FailureError

Job = dict[str, Any]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MOST_REASON_CHARACTERS = 240
# not -m, which would look into the current folder first
WORKER = "import sys; sys.path[:] = filter(None, sys.path); from avgn.benchmarking.worker import main; main()"


def run_job(job: Job, *, timeout: float) -> dict[str, Any]:
    """Run a job in `worker.py` and return what it measured; its "threads" (None: as the libraries like) bind
    libraries.

    Raises FailureError, in one sentence, when the process failed, died or took longer than `timeout` seconds. Whatever
    ends the call, the process and those it started end with it.
    """
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=answers,
            stderr=complaints,
            env=_environment(job.get("threads")),
            # its own process group: an interrupt from the terminal reaches only us, and we end the whole group
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            # stdin stays open: the worker ends when we do
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise FailureError(f"it took longer than {timeout:g} s: raise --timeout") from None
        finally:
            _end(process)
        answers.seek(0)
        complaints.seek(0)
        return _read(process.returncode, answers.read(), complaints.read().decode("utf-8", "replace"))


def one_sentence(error: BaseException) -> str:
    """Shorten an error to one line that fits into a table."""
    text = " ".join(str(error).split())
    text = text if isinstance(error, (FailureError, ValueError)) and text else f"{type(error).__name__}: {text}"
    return text if len(text) <= MOST_REASON_CHARACTERS else text[: MOST_REASON_CHARACTERS - 3] + "..."


def _environment(threads: int | None) -> dict[str, str]:
    # measure the package that runs here, wherever it was imported from
    paths = [str(Path(avgn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    # a compiler's forked helpers would be measured as well
    found["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    # and must not find what an earlier round compiled
    found["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    if threads is not None:
        found |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    # also after a normal end: a compiler may have left helpers in the group
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _read(status: int, answer: bytes, complaints: str) -> dict[str, Any]:
    if status < 0:
        raise FailureError(f"the process died of {signal.Signals(-status).name}{_last_line(complaints)}")
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        raise FailureError(f"the process ended with status {status}{_last_line(complaints)}") from None
    if found.get("failure") is not None:
        raise FailureError(found["failure"])
    return found


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f" ({lines[-1].strip()[:MOST_REASON_CHARACTERS]})" if lines else ""
