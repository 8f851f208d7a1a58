"""One visitor: messages in, a stream of the shared engine, results out."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time as clock
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from avgn.runtime.multi import MultiStream
from avgn.runtime.result import Result
from avgn.runtime.sources.drift import CaptureClock
from avgn.runtime.stream_handle import StreamHandle
from avgn.runtime.web import wire
from avgn.runtime.web.limits import Bucket, Limits
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.wire import WireError

# results that wait for the network: the newest win
OUTGOING = 2


@dataclass(eq=False)
class Sent:
    """What comes back with a result: the frame's own time, when it arrived here, whose stream it was."""

    time: float
    arrived: float
    stream: StreamHandle


class Session:
    """Runs one WebSocket from its hello to its end."""

    def __init__(
        self,
        socket: WebSocket,
        multi: MultiStream,
        workers: Executor,
        limits: Limits,
        metrics: Metrics,
        token: str | None,
    ) -> None:
        self._socket = socket
        self._multi = multi
        self._workers = workers
        self._limits = limits
        self._metrics = metrics
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._out: deque[str] = deque(maxlen=OUTGOING)
        self._ready = asyncio.Event()
        now = clock.monotonic()
        self._messages = Bucket(limits.messages_per_second, limits.burst, now)
        self._bytes = Bucket(limits.bytes_per_second, limits.burst, now)
        self._stream: StreamHandle | None = None
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._origin: float | None = None
        self._started = 0.0
        self._last = 0.0
        self._rate = 0
        self._sound: CaptureClock | None = None

    async def greet(self) -> None:
        """Take the hello, with the token where one is needed. Raises WireError, WebSocketDisconnect."""
        message = await self._receive(self._limits.hello)
        value = wire.read_text(message) if isinstance(message, str) else {}
        if value.get("type") != "hello" or value.get("version") != wire.VERSION:
            raise WireError(wire.POLICY, f'the first message is a "hello" of version {wire.VERSION}')
        given = value.get("token")
        if self._token is not None and not (
            isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())
        ):
            raise WireError(wire.NO_TOKEN, "the token is missing or wrong")

    async def run(self) -> None:
        """Serve the visitor until one side ends it. Raises WireError, WebSocketDisconnect."""
        info = self._multi.engine.info
        await self._send(wire.hello(info.classes, info.grid, self._multi.engine.name, info.has_presence))
        sender = asyncio.create_task(self._send_results())
        receiver = asyncio.create_task(self._take_messages())
        try:
            await asyncio.wait((sender, receiver), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, receiver):
                task.cancel()
            done = await asyncio.gather(receiver, sender, return_exceptions=True)
            await self._loop.run_in_executor(None, self._leave)
        for outcome in done:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def _take_messages(self) -> None:
        while True:
            message = await self._receive(self._limits.idle)
            if isinstance(message, bytes):
                piece = wire.read_binary(message)
                if isinstance(piece, wire.Frame):
                    await self._take_frame(piece)
                else:
                    self._take_sound(piece)
            else:
                self._take_command(wire.read_text(message))

    async def _take_frame(self, frame: wire.Frame) -> None:
        at = max(self._last, self._time(frame.time))
        self._last = at
        rgb = await self._loop.run_in_executor(self._workers, wire.decode_jpeg, frame.jpeg)
        stream = self._open()
        self._metrics.frames.inc()
        payload = Sent(frame.time, clock.monotonic(), stream)
        await self._loop.run_in_executor(self._workers, stream.push_frame, rgb, at, payload)

    def _take_sound(self, sound: wire.Sound) -> None:
        at = self._time(sound.time)
        if self._sound is None or sound.rate != self._rate:
            if self._sound is not None:
                raise WireError(wire.UNSUPPORTED, 'sound keeps its rate: send a "reset" first')
            self._sound, self._rate = CaptureClock(sound.rate), sound.rate
        self._metrics.audio_seconds.inc(len(sound.samples) / sound.rate)
        # the browser's blocks arrive in bursts: their times follow a loop, as a microphone's do
        self._open().push_audio(sound.samples, sound.rate, self._sound.block(len(sound.samples), at))

    def _take_command(self, value: dict[str, Any]) -> None:
        kind = value["type"]
        if kind == "sound-end":
            self._open().end_audio()
        elif kind == "reset":
            stream, self._stream = self._stream, None
            # what is still in line is of times that the visitor has left
            self._out.clear()
            self._begin()
            if stream is not None:
                self._workers.submit(stream.close)
        elif kind != "alive":
            raise WireError(wire.UNSUPPORTED, f"message type {kind[:20]!r} is not known")

    def _open(self) -> StreamHandle:
        if self._multi.error is not None:
            raise WireError(wire.FAILED, "the engine failed")
        if self._stream is None:
            try:
                self._stream = self._multi.open(self._take_result, name="visitor")
            except RuntimeError:
                raise WireError(wire.FAILED, "the server is stopping") from None
        return self._stream

    def _time(self, given: float) -> float:
        """A time of the browser's clock on the stream's, which starts with the first message."""
        now = clock.monotonic()
        if self._origin is None:
            self._origin, self._started = given, now
        at = given - self._origin
        if not abs(at - (now - self._started)) <= self._limits.clock:
            raise WireError(wire.BAD_CLOCK, "the visitor's clock jumped")
        return at

    def _take_result(self, result: Result, payload: Any) -> None:
        """From the engine's thread."""
        assert isinstance(payload, Sent)
        self._metrics.result(clock.monotonic() - payload.arrived, result.dropped)
        text = wire.answer(result, payload.time)
        with contextlib.suppress(RuntimeError):
            # the loop may have ended under a result that was on its way
            self._loop.call_soon_threadsafe(self._queue, text, payload.stream)

    def _queue(self, text: str, stream: StreamHandle) -> None:
        if stream is self._stream:
            self._out.append(text)
            self._ready.set()

    async def _send_results(self) -> None:
        while True:
            # an engine that fails gives no result to wait for
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ready.wait(), 1.0)
            self._ready.clear()
            if self._multi.error is not None:
                raise WireError(wire.FAILED, "the engine failed")
            while self._out:
                await self._send(self._out.popleft())

    async def _send(self, text: str) -> None:
        try:
            await asyncio.wait_for(self._socket.send_text(text), self._limits.send)
        except asyncio.TimeoutError:
            raise WireError(wire.POLICY, "the visitor does not read its results") from None

    async def _receive(self, seconds: float) -> str | bytes:
        try:
            message = await asyncio.wait_for(self._socket.receive(), seconds)
        except asyncio.TimeoutError:
            raise WireError(wire.IDLE, f"nothing came for {seconds:.0f} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data: str | bytes | None = message.get("bytes")
        if data is None:
            data = message.get("text") or ""
        now = clock.monotonic()
        if not self._messages.take(1, now) or not self._bytes.take(len(data), now):
            raise WireError(wire.TOO_FAST, "too many messages or bytes a second")
        return data

    def _leave(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def reason_of(error: WireError) -> str:
    """A close frame's reason: at most 123 bytes."""
    return json.dumps(error.reason)[1:-1].encode()[:120].decode("ascii", "ignore")
