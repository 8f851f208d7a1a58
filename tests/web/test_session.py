"""A visitor's session alone: what a reset leaves behind."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from avgn.runtime import Localizer
from avgn.runtime.multi import MultiStream
from avgn.runtime.web.door import Door
from avgn.runtime.web.gate import Gate
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.load import Load
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.session import Session


class Wire:
    """A transport that goes nowhere."""

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing to cut off."""


def test_no_result_from_before_a_reset_is_sent() -> None:
    """Neither those in line for a visitor who reads slowly, nor those still on their way from the engine."""
    engine = Localizer.load("tiny", threads=1).engine

    async def visit() -> None:
        with MultiStream(engine, max_batch=1) as multi, ThreadPoolExecutor(1) as workers:
            visit = Door(Limits(), Metrics()).enter(Wire())
            # nothing is sent or received here: the socket is never touched
            session = Session(cast(Any, None), visit, multi, workers, Gate(local=True, origins=(), token=None), Load())
            before = session._run
            session._queue("old", before)
            assert list(session._out) == ["old"]
            session._take_command(json.loads('{"type": "reset"}'))
            assert not session._out
            after = session._run
            session._queue("late", before)
            session._queue("new", after)
            assert after is not before and list(session._out) == ["new"]
            after.close()

    asyncio.run(visit())
