"""uvicorn's two protocols behind the door: every connection is counted, timed, and bounded in what waits to be sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from avgn.runtime.web.door import Door, Stage, Visit
from avgn.runtime.web.frames import FrameCounter
from avgn.runtime.web.gate import Heading
from avgn.runtime.web.wire import TOO_FAST, WireError

# what the visit is called in an ASGI scope's state
STATE = "avgn.visit"
# bytes that are read and forgotten after the end of a visit
REST = 2**20
# seconds for a TLS handshake
HANDSHAKE = 5.0


class Loop(asyncio.SelectorEventLoop):
    """An event loop in which no TLS handshake lasts for long."""

    def create_server(self, *args: Any, **named: Any) -> Any:
        if named.get("ssl") is not None:
            named.setdefault("ssl_handshake_timeout", HANDSHAKE)
        return super().create_server(*args, **named)


class Outlet:
    """A transport that is cut off once too much waits in it; answers of libraries get our headers."""

    def __init__(self, transport: Any, visit: Visit, heading: Heading) -> None:
        self.visit = visit
        self.heads_answers = False
        # whether the other side has yet to read why it was closed
        self.lingers: Callable[[], bool] = lambda: False
        self._transport = transport
        self._heading = heading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close, but not with data unread, which would take our last message with it: the visit's end does that."""
        if not self.lingers():
            self._transport.close()

    def write(self, data: bytes) -> None:
        """Send, unless the visitor has left."""
        if self.visit.has_left or not data:
            return
        if self.heads_answers and data.startswith(b"HTTP/1.1 "):
            data = self.visit.instead or self._heading.put_into(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self.visit.door.limits.outgoing_bytes:
            self.visit.door.metrics.refused.labels("unread").inc()
            self.visit.drop()


class VisitorHttp(H11Protocol):
    """HTTP of a visitor whom the door has let in, and may show out."""

    door: Door
    heading: Heading
    visit: Visit
    app_state: dict[str, Any]

    def connection_made(self, transport: Any) -> None:
        self.visit = self.door.enter(transport)
        self.app_state = {**self.app_state, STATE: self.visit}
        super().connection_made(Outlet(transport, self.visit, self.heading))

    def data_received(self, data: bytes) -> None:
        # requests have no content that is read, so a header is all that may come
        if self.visit.take(1, len(data)):
            super().data_received(data)
        else:
            self.visit.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self.visit)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # amid another answer
            self.visit.drop()
            return
        self.transport.write(self.heading.answer(400, msg))
        self.transport.close()


class VisitorWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket of the same visitor; its bytes are counted before they are read."""

    door: Door
    heading: Heading
    visit: Visit

    def connection_made(self, transport: Any) -> None:
        self.visit = transport.visit
        self.visit.enter(Stage.HELLO)
        transport.heads_answers = True
        transport.lingers = self._lingers
        self._counter: FrameCounter | None = None
        self._is_over = False
        self._rest = REST
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._counter is None:
            self._counter = FrameCounter()
            self._take_request(data)
            return
        if self._is_over:
            self._overlook(len(data))
            return
        if not self.visit.take(self._counter.take(data), len(data)) or self._counter.is_attack:
            self._is_over = True
            self.visit.end(WireError(TOO_FAST, "too many messages or bytes a second"))
            return
        super().data_received(data)
        if self.visit.was_told and not self._lingers():
            self.transport.close()

    def _lingers(self) -> bool:
        return self.visit.was_told and self.conn.close_rcvd is None

    def _overlook(self, size: int) -> None:
        """Read the rest of what was on its way, for a program amid sending reads nothing, but no flood."""
        self._rest -= size
        if self._rest < 0:
            self.transport.pause_reading()

    def _take_request(self, data: bytes) -> None:
        """Read the request once more that the other protocol has read; what one takes the other may refuse."""
        with contextlib.suppress(Exception):
            super().data_received(data)
        if not self.handshake_initiated:
            self._is_over = True
            self.transport.write(self.heading.answer(400, "this is no handshake"))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self.visit)
        super().connection_lost(exc)


def make_protocols(door: Door, heading: Heading) -> tuple[type[VisitorHttp], type[VisitorWebSocket]]:
    """Make the classes for uvicorn's `http` and `ws`, which creates their objects itself."""
    ours = {"door": door, "heading": heading}
    return type("Http", (VisitorHttp,), ours), type("WebSocket", (VisitorWebSocket,), ours)
