"""Workers on this machine: this process, or several that were spawned."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from avgn.runtime.collections.job import Entry, Job, Outcome
from avgn.runtime.collections.runner import Runner
from avgn.runtime.errors import FailureError
from avgn.runtime.interrupts import end_with_parent, leave_to_parent
from avgn.runtime.workers import prefetch

AHEAD = 2
WATCH_SECONDS = 0.5

_runner: Runner | None = None


def run_here(job: Job, chunks: Iterable[list[Entry]]) -> Iterator[list[Outcome]]:
    """Localize in this process; a thread reads ahead."""
    runner = Runner(job)
    pieces = prefetch(map(runner.read, chunks), AHEAD)
    try:
        for read in pieces:
            yield runner.localize(read)
    finally:
        pieces.close()  # type: ignore[attr-defined]


def run_in_processes(job: Job, chunks: Iterable[list[Entry]], workers: int) -> Iterator[list[Outcome]]:
    """Localize in `workers` spawned processes, each with an engine of its own; chunks come back as they are done.

    Raises FailureError when a process is killed. No process outlives this one.
    """
    # what is wrong with the bundle or the engine is said here
    Runner(job)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(job, stop))
    waiting: set[Future[list[Outcome]]] = set()
    rest = iter(chunks)
    try:
        while True:
            waiting |= {pool.submit(_run, chunk) for chunk in islice(rest, AHEAD * workers - len(waiting))}
            if not waiting:
                break
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise FailureError(
            "a worker process was killed, perhaps for want of memory: use fewer --workers and run the same command "
            "again to go on"
        ) from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _start(job: Job, stop: Any) -> None:
    global _runner
    # signals go to the whole group of processes: the first one says when to end
    leave_to_parent()
    end_with_parent()
    threading.Thread(target=_end_when_told, args=(stop,), daemon=True).start()
    _runner = Runner(job)


def _end_when_told(stop: Any) -> None:
    # waking up now and then: who sets the event waits for all who sleep, and one of them may have been killed
    while not stop.wait(WATCH_SECONDS):
        pass
    os._exit(1)


def _run(chunk: list[Entry]) -> list[Outcome]:
    assert _runner is not None
    return _runner(chunk)
