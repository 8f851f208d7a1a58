"""The engine that all visitors share, and its exchange for another one while they stay."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol

from avgn.runtime.engines.base import Engine
from avgn.runtime.multi import MultiStream


class Guest(Protocol):
    """Whoever has a stream on the engine."""

    def move(self) -> asyncio.Future[None]:
        """Begin a stream on the new engine at once; the future is done when the old one is left."""
        ...


class SharedEngine:
    """One engine for everybody. Everything runs in the event loop but making, and the end."""

    def __init__(self, engine: Engine, *, max_batch: int = 8) -> None:
        self._max_batch = max_batch
        self.multi = self._start(engine)
        self._guests: dict[Guest, None] = {}

    def __enter__(self) -> SharedEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.multi.close()

    @property
    def engine(self) -> Engine:
        """The one that runs now."""
        return self.multi.engine

    @property
    def error(self) -> BaseException | None:
        """What stopped the engine, if anything did."""
        return self.multi.error

    def join(self, guest: Guest) -> None:
        """Be told when the engine is another one."""
        self._guests[guest] = None

    def leave(self, guest: Guest) -> None:
        self._guests.pop(guest, None)

    async def prepare(self, engine: Engine) -> MultiStream:
        """Warm another engine up beside the one that runs."""
        return await asyncio.get_running_loop().run_in_executor(None, self._start, engine)

    async def exchange(self, multi: MultiStream) -> None:
        """Let everybody go on with what was prepared, at the same moment; the old one ends when all have left it."""
        old, self.multi = self.multi, multi
        await asyncio.gather(*(guest.move() for guest in list(self._guests)), return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, old.close)

    def _start(self, engine: Engine) -> MultiStream:
        return MultiStream(engine, max_batch=self._max_batch)
