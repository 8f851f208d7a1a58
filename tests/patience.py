"""Patience with a machine that has much else to do: what is waited for, and what is tried again.

No test asserts how fast the machine is. What has to come about is waited for as long as anything may take; what only
the machine can make worse, as a delay or a frame that was dropped, is looked at up to three times: a fault is there
each time.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

# seconds that anything may take
PATIENCE = 60.0
TRIES = 3


def until(
    happened: Callable[[], object], seconds: float = PATIENCE, going_on: Callable[[], object] = lambda: True
) -> None:
    """Wait until something happened; `going_on`: what has to last meanwhile, as a process of the test."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert going_on(), "what had to go on has ended"
        assert time.monotonic() < deadline, f"it did not come about in {seconds} s"
        time.sleep(0.01)


@contextmanager
def bounded(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Let a process live as long as anything may take: who reads what it says comes to an end."""
    limit = threading.Timer(PATIENCE, process.kill)
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()


class Clock:
    """A clock that stands still, or goes as a test says, in place of a module's `time`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


def best_of(work: Callable[[], None]) -> None:
    """Do something up to three times until it passes; warn where it was not at once."""
    for number in range(1, TRIES + 1):
        try:
            return work()
        except AssertionError as error:
            if number == TRIES:
                raise
            warnings.warn(f"it is tried again: {str(error)[:300]}", stacklevel=2)


def tried_again(test: Test) -> Test:
    """Run a test up to three times until it passes, for what only the machine can make worse; warn where it was.

    Each try has a `tmp_path` of its own; other fixtures are shared.
    """

    @functools.wraps(test)
    def run(**given: Any) -> None:
        numbers = itertools.count(1)

        def once() -> None:
            mine = dict(given)
            if "tmp_path" in given:
                mine["tmp_path"] = given["tmp_path"] / f"try-{next(numbers)}"
                mine["tmp_path"].mkdir()
            test(**mine)

        best_of(once)

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]
