"""The web application: the page, the WebSocket, /healthz and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from avgn.runtime.web import wire
from avgn.runtime.web.archive import Archive
from avgn.runtime.web.door import Door, Stage, Visit
from avgn.runtime.web.files import PageFiles
from avgn.runtime.web.gate import ConnectionGate, Heading
from avgn.runtime.web.lessons import Teacher
from avgn.runtime.web.load import Load
from avgn.runtime.web.protocols import STATE
from avgn.runtime.web.school import School
from avgn.runtime.web.session import Session, reason_of
from avgn.runtime.web.shared import SharedEngine
from avgn.runtime.web.wire import WireError

# one: those who send much wait for each other, and a processor is left to the engine
DECODERS = 1

log = logging.getLogger("avgn.runtime")


class Reception:
    """What every request passes first: the gate, the pace of its address, and our headers on whatever is answered."""

    def __init__(self, app: ASGIApp, gate: ConnectionGate, door: Door, heading: Heading) -> None:
        self._app = app
        self._gate = gate
        self._door = door
        self._heading = heading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit: Visit = scope["state"][STATE]
        visit.enter(Stage.ANSWER)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*self._heading.encoded, *message.get("headers", ())]
            await send(message)

        try:
            if pause := self._door.requests.wait(visit.address):
                await asyncio.sleep(pause)
            await self._choose(scope)(scope, receive, answer)
        except Exception:
            log.exception("a request failed")
            if not started:
                await PlainTextResponse("the server failed", status_code=500)(scope, receive, answer)
        finally:
            visit.enter(Stage.REQUEST)

    def _choose(self, scope: Scope) -> ASGIApp:
        refused = self._gate.refusal(HTTPConnection(scope))
        if refused is None:
            return self._app
        status, reason = refused
        self._door.metrics.refused.labels(reason).inc()
        return PlainTextResponse(f"this {reason} is not served", status_code=status)


class Application:
    """The routes around an engine that visitors share, and may teach where there is a teacher; the caller closes
    `shared`."""

    def __init__(
        self,
        shared: SharedEngine,
        gate: ConnectionGate,
        door: Door,
        heading: Heading,
        teacher: Teacher | None = None,
    ) -> None:
        self._shared = shared
        self._teacher = teacher
        # made in the event loop that it belongs to
        self._school: School | None = None
        self._gate = gate
        self._door = door
        self._heading = heading
        self._load = Load()
        self._metrics = door.metrics
        self._workers = ThreadPoolExecutor(DECODERS, thread_name_prefix="avgn-web")

    def build(self) -> ASGIApp:
        """Return the ASGI application."""
        routes = [
            Route("/healthz", self.health),
            Route("/metrics", self.show_metrics),
            WebSocketRoute("/stream", self.stream),
            *([] if self._teacher is None else [Route("/taught.zip", self.archive, methods=["GET"])]),
            Route("/{path:path}", PageFiles(teach=self._teacher is not None).__call__, methods=["GET"]),
        ]
        return Reception(Starlette(routes=routes, lifespan=self.lifespan), self._gate, self._door, self._heading)

    async def health(self, request: Request) -> Response:
        """Return whether the engine runs, and for how many."""
        failed = self._shared.error is not None
        body = {
            "status": "failed" if failed else "ok",
            "sessions": self._door.count(Stage.PLACE),
            "engine": self._shared.engine.name,
        }
        return JSONResponse(body, status_code=503 if failed else 200)

    async def show_metrics(self, request: Request) -> Response:
        """Prometheus text, for whoever knows the token."""
        if (refused := await self._refused(request)) is not None:
            return refused
        self._metrics.sessions.set(self._door.count(Stage.PLACE))
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def archive(self, request: Request) -> Response:
        """The bundle with what was taught, for whoever knows the token."""
        if (refused := await self._refused(request)) is not None:
            return refused
        assert self._school is not None
        visit: Visit = request.scope["state"][STATE]
        return await Archive(self._school).answer(visit)

    async def _refused(self, request: Request) -> Response | None:
        """Return what is answered to who does not know the token."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if self._gate.fits(given.strip() if kind.lower() == "bearer" else None):
            return None
        visit: Visit = request.scope["state"][STATE]
        visit.enter(Stage.REGRET)
        await self._gate.regret(visit.address, request.scope["path"])
        return PlainTextResponse("the token is missing or wrong: send Authorization: Bearer", status_code=401)

    async def stream(self, socket: WebSocket) -> None:
        """Serve a visitor, from the handshake to the end."""
        visit: Visit = socket.scope["state"][STATE]
        if (refused := self._gate.refusal(socket)) is not None:
            status, reason = refused
            self._metrics.refused.labels(reason).inc()
            visit.instead = self._heading.answer(status, f"this {reason} is not served")
            await socket.close()
            return
        if pause := self._door.sockets.wait(visit.address):
            await asyncio.sleep(pause)
        await socket.accept()
        try:
            await self._serve(socket, visit)
        except WireError as error:
            self._metrics.closed.labels(str(error.code)).inc()
            visit.was_told = True
            await _close(socket, error.code, reason_of(error))
        except WebSocketDisconnect:
            pass
        except Exception:
            # nothing works for a visitor who has left
            if not visit.is_leaving:
                log.exception("a visitor's session failed")
                self._metrics.closed.labels(str(wire.FAILED)).inc()
                await _close(socket, wire.FAILED, "the server failed")
        finally:
            await visit.part()

    async def _serve(self, socket: WebSocket, visit: Visit) -> None:
        session = Session(socket, visit, self._shared, self._workers, self._gate, self._load, self._school)
        await session.greet()
        self._metrics.sessions_total.inc()
        await session.run()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Watch the door while the server runs."""
        watching = asyncio.create_task(self._door.watch())
        if self._teacher is not None:
            self._school = School(self._teacher, self._shared)
        yield
        watching.cancel()
        if self._school is not None:
            self._school.close()
        self._workers.shutdown(wait=False, cancel_futures=True)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(socket.close(code, reason), 2.0)
