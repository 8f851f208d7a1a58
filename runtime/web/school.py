"""Lessons of a server: one visitor at a time gives one, in a thread of its own, and everybody has what comes of it.

The bundle of a server is one: what a visitor teaches or takes back is so for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time as clock
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.multi import MultiStream
from avgn.runtime.web.lessons import Facts, LessonError, Taught, Teacher
from avgn.runtime.web.limits import Bucket
from avgn.runtime.web.recorder import LONGEST
from avgn.runtime.web.shared import SharedEngine

# seconds that a visitor may take to say where it is and what it is called
NAMING = 120.0
# changes of the engine a second, and how many at once
CHANGES, CHANGES_AT_ONCE = 1 / 3, 5
# how much less of a processor lessons get than the streams (Linux)
NICE = 5
# archives on their way at a time
ARCHIVES = 2

Value = TypeVar("Value")
log = logging.getLogger("avgn.runtime")


class Pupil(Protocol):
    """Whose turn it is."""

    def lose_turn(self) -> None:
        """Others wait, and it took too long."""
        ...


class School:
    """The teacher with its thread, whose turn it is, and the exchange of the engine. Runs in the event loop."""

    def __init__(self, teacher: Teacher, shared: SharedEngine) -> None:
        self._teacher = teacher
        self._shared = shared
        self._thread = ThreadPoolExecutor(1, "avgn-teach", initializer=_step_back)
        self._turn: Pupil | None = None
        self._since = 0.0
        self._changing = asyncio.Lock()
        self._changes = Bucket(CHANGES, CHANGES_AT_ONCE / CHANGES, clock.monotonic())
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self.archives = asyncio.Semaphore(ARCHIVES)

    def facts(self) -> Facts:
        """What the page must know of lessons."""
        taught = [{"label": label, "examples": count} for label, count in self._teacher.taught.items()]
        return {"taught": taught, "seconds": LONGEST}

    @property
    def known(self) -> tuple[str, ...]:
        return self._teacher.known

    @property
    def taught(self) -> Mapping[str, int]:
        return self._teacher.taught

    @property
    def teacher(self) -> Teacher:
        return self._teacher

    def take_turn(self, pupil: Pupil) -> None:
        """Give the turn to a visitor, unless another one has it. Raises LessonError."""
        now = clock.monotonic()
        holder = self._turn
        if holder not in (None, pupil):
            if now - self._since < LONGEST + NAMING or self._changing.locked():
                raise LessonError("busy")
            assert holder is not None
            holder.lose_turn()
        self._turn, self._since = pupil, now

    def end_turn(self, pupil: Pupil) -> None:
        """Let others have it."""
        if self._turn is pupil:
            self._turn = None

    async def ask(self, work: Callable[[], Value]) -> Value:
        """Run what the teacher does in its thread. Raises LessonError."""
        return await self._loop.run_in_executor(self._thread, self._told, work)

    async def change(self, work: Callable[[], Taught]) -> Facts:
        """Let the teacher learn or forget, and everybody have it; a visitor who leaves meanwhile changes nothing.

        Raises LessonError.
        """
        task = asyncio.create_task(self._change(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _change(self, work: Callable[[], Taught]) -> Facts:
        if self._changing.locked() or not self._changes.take(1, clock.monotonic()):
            raise LessonError("busy")
        async with self._changing:
            taught = await self.ask(work)
            multi = await self._prepare(taught)
            await self.ask(lambda: self._teacher.keep(taught))
            await self._shared.exchange(multi)
            return taught.facts

    async def _prepare(self, taught: Taught) -> MultiStream:
        try:
            return await self._shared.prepare(taught.localizer.engine)
        except Exception:
            # an engine is somebody else's library, and memory may be short
            if not self._is_over():
                log.exception("the engine of a lesson failed")
            raise LessonError("failed", reason="") from None

    async def pack(self) -> Path:
        """Return the bundle as it is now as a .zip."""
        async with self._changing:
            return await self.ask(self._teacher.pack)

    def close(self) -> None:
        """End with the server; what is amid a lesson is told, and goes."""
        self._ended = True
        if self._tasks:
            log.warning("the server ended in the middle of a lesson: what was being taught is not kept")
        for task in self._tasks:
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_over(self) -> bool:
        """Whether the server has ended: then the teacher's files go under its hands, and what fails is no fault."""
        return self._ended or self._loop.is_closed()

    def _told(self, work: Callable[[], Value]) -> Value:
        """Run work of the teacher; whatever goes wrong in it is a lesson that came to nothing."""
        try:
            return work()
        except LessonError:
            raise
        except Exception as error:
            if self._is_over():
                raise LessonError("failed", reason="") from None
            if isinstance(error, (InputError, FailureError)):
                log.warning("a lesson came to nothing: %s", error)
                raise LessonError("failed", reason=str(error)[:300]) from None
            log.exception("a lesson failed")
            raise LessonError("failed", reason="") from None


def _step_back() -> None:
    """Let streams go before this thread, where threads have a niceness of their own."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
