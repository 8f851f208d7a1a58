"""A visitor's session without a network: its messages are given, and what it is told is kept."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, cast

import numpy as np

from avgn.runtime.decision import Heard
from avgn.runtime.result import Result
from avgn.runtime.web import wire
from avgn.runtime.web.door import Door, Stage
from avgn.runtime.web.gate import ConnectionGate
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.load import Load
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.session import Session
from avgn.runtime.web.shared import SharedEngine
from tests.patience import PATIENCE

Given = ParamSpec("Given")


def awaited(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    """Run a test in a loop of its own, for a minute at most."""

    @functools.wraps(test)
    def run(*given: Given.args, **named: Given.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*given, **named), PATIENCE))

    return run


class Wire:
    """A transport whose other end never reads."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.waiting = 0
        self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes) -> None:
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


class Socket:
    """A WebSocket that gives messages and keeps what is sent, unless its visitor never reads."""

    def __init__(self, *messages: str | bytes | dict[str, Any], reads: bool = True) -> None:
        self.messages = list(messages)
        self.sent: list[Any] = []
        self._reads = reads

    async def receive(self) -> dict[str, Any]:
        while not self.messages:
            await asyncio.sleep(0.01)
        one = self.messages.pop(0)
        if isinstance(one, dict):
            return one
        return {"type": "websocket.receive", "text" if isinstance(one, str) else "bytes": one}

    async def send_text(self, text: str) -> None:
        if not self._reads:
            await asyncio.sleep(3600)
        self.sent.append(json.loads(text))


@asynccontextmanager
async def visiting(
    engine: Any, socket: Socket | None = None, *, token: str | None = None, stage: Stage = Stage.LOOKING, **limits: Any
) -> AsyncIterator[Session]:
    """A session that has come to `stage`."""
    with SharedEngine(engine, max_batch=1) as shared, ThreadPoolExecutor(1) as workers:
        visit = Door(Limits(**limits), Metrics()).enter(Wire())
        gate = ConnectionGate(local=True, origins=(), token=token, delay=0.01)
        session = Session(cast(Any, socket or Socket(reads=False)), visit, shared, workers, gate, Load())
        visit.enter(stage)
        # from here on no time passes that a test does not let pass
        visit.arrived = visit.door._looked = time.monotonic()
        try:
            yield session
        finally:
            session._run.close()


def at_once(session: Session, *messages: str | bytes) -> None:
    """Take messages as if all of them had come at the moment of the last one."""
    for one in messages:
        if isinstance(one, str):
            session._take_command(json.loads(one))
            continue
        piece = wire.read_binary(one)
        session._hold_place()
        if isinstance(piece, wire.Frame):
            session._take_frame(piece)
        else:
            session._take_samples(piece)


def later(session: Session, seconds: float) -> None:
    """Let time pass in which the server was at work."""
    session._visit.arrived += seconds
    session._visit.door._looked = session._visit.arrived


def counted(session: Session, name: str) -> float:
    """A counter of the session's server."""
    lines = session._metrics.text().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


def source(heat: Any) -> Heard:
    """A source with this map, or with none."""
    return Heard(
        label="bell",
        index=4,
        audio_prob=0.9,
        visual_prob=0.8,
        certainty=0.7,
        on_screen=True,
        peak=(0.5, 0.5),
        box=None,
        map=None if heat is None else np.array(heat, np.float32),
    )


def result(*sources: Heard) -> Result:
    return Result(
        time=1.0,
        frame=3,
        state="source" if sources else "none",
        sources=sources,
        audio_prob=np.ones(1, np.float32),
        visual_prob=np.ones(1, np.float32),
        maps=np.zeros((1, 2, 3), np.float32),
        loudness_db=-20.0,
        window=1,
        ms={},
        dropped=2,
    )
