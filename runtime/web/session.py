"""One visitor: messages in, a stream of the shared engine, results out.

Messages are taken as they come and never wait for the work on them: what we delay is not the visitor's fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time as clock
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from avgn.runtime.result import Result
from avgn.runtime.sources.drift import CaptureClock
from avgn.runtime.web import wire
from avgn.runtime.web.desk import Desk
from avgn.runtime.web.door import Stage, Visit
from avgn.runtime.web.gate import ConnectionGate
from avgn.runtime.web.inbox import Inbox, Jpeg, Recent, Samples
from avgn.runtime.web.limits import Bucket
from avgn.runtime.web.load import Budget, Load
from avgn.runtime.web.run import Run, Sent
from avgn.runtime.web.school import School
from avgn.runtime.web.shared import SharedEngine
from avgn.runtime.web.wire import WireError

# results that wait for the network: the newest win
OUTGOING = 2
SILENCE = np.zeros(0, np.int16)
# seconds after which a work that goes on is cancelled once more
ASK_AGAIN = 0.2


class Session:
    """Runs one WebSocket from its hello to its end."""

    def __init__(
        self,
        socket: WebSocket,
        visit: Visit,
        shared: SharedEngine,
        workers: Executor,
        gate: ConnectionGate,
        load: Load,
        school: School | None = None,
    ) -> None:
        """`school`: where visitors may teach."""
        self._socket = socket
        self._visit = visit
        self._shared = shared
        self._workers = workers
        self._gate = gate
        self._limits = limits = visit.door.limits
        self._metrics = visit.door.metrics
        self._loop = asyncio.get_running_loop()
        self._out: deque[str] = deque(maxlen=OUTGOING)
        # what is no result, by its type: the newest of each
        self._news: dict[str, str] = {}
        self._school = school
        self._desk = None if school is None else Desk(school, lambda message: self._tell("lesson", json.dumps(message)))
        self._ready = asyncio.Event()
        now = clock.monotonic()
        stalled = visit.door.stalled(now)
        self._resets = Bucket(limits.resets_per_second, limits.reset_burst / limits.resets_per_second, now, stalled)
        burst = limits.audio_burst / limits.audio_rate
        self._seconds = Bucket(limits.audio_rate, burst, now, stalled, begin=limits.audio_begin)
        self._load = load
        self._lessons = Bucket(limits.lessons_per_second, limits.lesson_burst / limits.lessons_per_second, now, stalled)
        self._budget = Budget(limits, load)
        self._inbox = Inbox(self._pass_over)
        # sound that a new engine hears once more
        self._recent = Recent(shared.engine.info.window_seconds + shared.engine.info.audio_hop_seconds)
        # frames passed over before the stream, and how many of them results have reported
        self._dropped = 0
        self._told = 0
        self._begin()

    def _begin(self) -> None:
        self._origin: float | None = None
        self._started = (0.0, 0.0)
        self._last = 0.0
        self._rate = 0
        self._audio_clock: CaptureClock | None = None
        self._recent.clear()
        self._open()

    def _open(self) -> None:
        self._again: list[Samples] = []
        self._run = Run(self._shared.multi, self._load, self._budget, self._metrics, self._take_result)

    def move(self) -> asyncio.Future[None]:
        """Go on with another engine: its stream hears what the last window heard, and no result of the old one is
        sent after what it can name."""
        run = self._run
        self._out.clear()
        self._open()
        self._again = self._recent.take()
        self._tell("classes", self._hello("classes"))
        return self._loop.run_in_executor(None, run.close)

    def _hello(self, kind: str) -> str:
        engine = self._shared.engine
        teach = None if self._school is None else self._school.facts()
        info = engine.info
        return wire.hello(info.classes, info.grid, engine.name, info.has_presence, kind=kind, teach=teach)

    def _tell(self, kind: str, text: str) -> None:
        """Send what is no result as soon as can be; it takes the place of what waits of its kind."""
        self._news.pop(kind, None)
        self._news[kind] = text
        self._ready.set()

    async def greet(self) -> None:
        """Take the hello, with the token where one is needed. Raises WireError, WebSocketDisconnect."""
        await self._until_ended(self._greet())
        self._visit.enter(Stage.LOOKING)

    async def run(self) -> None:
        """Serve the visitor until one side ends it. Raises WireError, WebSocketDisconnect."""
        self._shared.join(self)
        try:
            await self._send(self._hello("hello"))
            await self._until_ended(self._send_results(), self._take_messages(), self._work())
        finally:
            self._shared.leave(self)
            if self._desk is not None:
                self._desk.close()
            await self._loop.run_in_executor(None, self._run.close)

    async def _until_ended(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run works together until the first is done or the visit must end."""
        ending = self._visit.ending()
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            waiting: list[asyncio.Future[Any]] = [*tasks, ending]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            while pending := [task for task in tasks if not task.done()]:
                for task in pending:
                    task.cancel()
                # before Python 3.12 wait_for loses a cancellation that comes together with what it waits for
                await asyncio.wait(pending, timeout=ASK_AGAIN)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if ending.done():
            raise ending.result()
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def _greet(self) -> None:
        message = await self._receive()
        value = wire.read_text(message) if isinstance(message, str) else {}
        if value.get("type") != "hello" or value.get("version") != wire.VERSION:
            raise WireError(wire.POLICY, f'the first message is a "hello" of version {wire.VERSION}')
        if not self._gate.fits(value.get("token")):
            self._visit.enter(Stage.REGRET)
            await self._gate.regret(self._visit.address, "/stream")
            raise WireError(wire.NO_TOKEN, "the token is missing or wrong")

    async def _take_messages(self) -> None:
        while True:
            message = await self._receive()
            if isinstance(message, str):
                self._take_command(wire.read_text(message))
                continue
            piece = wire.read_binary(message)
            self._hold_place()
            if isinstance(piece, wire.Frame):
                self._take_frame(piece)
            else:
                self._take_samples(piece)

    def _hold_place(self) -> None:
        """Who sends pictures or sound has one of the places, if there is one."""
        visit, places = self._visit, self._limits.sessions
        if visit.stage is not Stage.PLACE:
            if visit.door.count(Stage.PLACE) >= places:
                raise WireError(wire.FULL, f"the server is full: {places} visitors")
            visit.enter(Stage.PLACE)
        visit.use()

    def _take_frame(self, frame: wire.Frame) -> None:
        self._last = max(self._last, self._time(frame.time))
        if self._desk is not None:
            self._desk.see(frame)
        self._inbox.put(Jpeg(jpeg=frame.jpeg, at=self._last, time=frame.time, arrived=self._visit.arrived))

    def _take_samples(self, samples: wire.Samples) -> None:
        at = self._time(samples.time)
        if self._audio_clock is None or samples.rate != self._rate:
            if self._audio_clock is not None:
                raise WireError(wire.UNSUPPORTED, 'sound keeps its rate: send a "reset" first')
            self._audio_clock, self._rate = CaptureClock(samples.rate), samples.rate
        seconds = len(samples.samples) / samples.rate
        if not self._may(self._seconds, seconds):
            raise WireError(wire.TOO_FAST, "more sound than time")
        self._metrics.audio_seconds.inc(seconds)
        # the browser's blocks arrive in bursts: their times follow a loop, as a microphone's do
        at = self._audio_clock.block(len(samples.samples), at)
        if self._desk is not None:
            self._desk.hear(samples)
        self._inbox.put(Samples(samples=samples.samples, rate=samples.rate, at=at))

    def _take_command(self, value: dict[str, Any]) -> None:
        kind = value["type"]
        if kind == "alive":
            return
        if self._desk is not None and self._desk.knows(kind):
            if not self._may(self._lessons, 1):
                raise WireError(wire.TOO_FAST, "too many lessons")
            self._desk.take(value)
            return
        if kind not in ("reset", "sound-end"):
            raise WireError(wire.UNSUPPORTED, f"message type {kind[:20]!r} is not known")
        if not self._may(self._resets, 1):
            raise WireError(wire.TOO_FAST, "too many resets")
        if kind == "reset":
            self._reset()
        else:
            self._inbox.put(Samples(samples=SILENCE, rate=1, at=0.0))

    def _may(self, bucket: Bucket, amount: float) -> bool:
        return bucket.take(amount, self._visit.arrived, self._visit.door.stalled(self._visit.arrived))

    def _reset(self) -> None:
        """Begin a new stream, on a clock of its own; the place is free until something is sent for it."""
        run = self._run
        # what is still in line is of times that the visitor has left
        self._out.clear()
        self._inbox.clear()
        if self._desk is not None:
            self._desk.reset()
        self._begin()
        self._loop.run_in_executor(None, run.close)
        self._visit.enter(Stage.LOOKING)

    def _time(self, given: float) -> float:
        """Return a time of the browser's clock on the stream's, which starts with the first message."""
        now = self._visit.arrived
        stalled = self._visit.door.stalled(now)
        if self._origin is None:
            self._origin, self._started = given, (now, stalled)
        at = given - self._origin
        begin, before = self._started
        ahead = at - (now - begin)
        # what we were late to take looks as if it came late
        if not -self._limits.clock - (stalled - before) <= ahead <= self._limits.clock:
            raise WireError(wire.BAD_CLOCK, "the visitor's clock jumped")
        return at

    async def _work(self) -> None:
        """Decode and resample what comes, in the workers' threads."""
        while True:
            samples, frame = await self._inbox.take()
            run, again = self._run, self._again
            self._again = []
            if self._school is not None:
                self._recent.add(samples)
            work = partial(run.work, [*again, *samples], frame, self._dropped, clock.monotonic())
            if not await self._loop.run_in_executor(self._workers, work):
                self._pass_over()

    def _pass_over(self) -> None:
        self._dropped += 1

    def _take_result(self, result: Result, payload: Any) -> None:
        """From the engine's thread."""
        assert isinstance(payload, Sent)
        lost, self._told = payload.lost - self._told, payload.lost
        result = replace(result, dropped=result.dropped + lost)
        self._metrics.result(clock.monotonic() - payload.frame.arrived, result.dropped)
        text = wire.answer(result, payload.frame.time)
        with contextlib.suppress(RuntimeError):
            # the loop may have ended under a result that was on its way
            self._loop.call_soon_threadsafe(self._queue, text, payload.run)

    def _queue(self, text: str, run: Run) -> None:
        if run is self._run:
            self._out.append(text)
            self._ready.set()

    async def _send_results(self) -> None:
        while True:
            # an engine that fails gives no result to wait for
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ready.wait(), 1.0)
            self._ready.clear()
            if self._shared.error is not None:
                raise WireError(wire.FAILED, "the engine failed")
            self._free_place()
            while self._news or self._out:
                await self._send(self._news.pop(next(iter(self._news))) if self._news else self._out.popleft())

    def _free_place(self) -> None:
        """Who says no more than to be alive makes place for others."""
        if self._visit.stage is Stage.PLACE and self._visit.unused(clock.monotonic()) > self._limits.idle:
            self._reset()

    async def _send(self, text: str) -> None:
        try:
            await asyncio.wait_for(self._socket.send_text(text), self._limits.send)
        except asyncio.TimeoutError:
            raise WireError(wire.POLICY, "the visitor does not read its results") from None

    async def _receive(self) -> str | bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        self._visit.touch()
        data: str | bytes | None = message.get("bytes")
        return (message.get("text") or "") if data is None else data


def reason_of(error: WireError) -> str:
    """Return a close frame's reason: at most 123 bytes."""
    return json.dumps(error.reason)[1:-1].encode()[:120].decode("ascii", "ignore")
