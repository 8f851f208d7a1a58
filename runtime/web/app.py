"""The web application: the page, the WebSocket, /healthz and /metrics; who may come in."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from avgn.runtime.multi import MultiStream
from avgn.runtime.web import wire
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.session import Session, reason_of
from avgn.runtime.web.wire import WireError

PAGE = Path(__file__).parent / "page"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# connections that have not said hello yet, per session that is allowed
WAITING = 4
DECODERS = 2

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}

log = logging.getLogger("avgn.runtime")


class Gate:
    """The checks of every connection: the Host it names, and the page it comes from."""

    def __init__(self, *, local: bool, origins: Sequence[str], token: str | None) -> None:
        """`local`: the server listens on this machine only; `origins`: other pages that may connect."""
        self.local = local
        self.origins = tuple(origins)
        self.token = token

    def refusal(self, connection: HTTPConnection) -> str | None:
        """Why a connection may not come in, or None."""
        host = connection.headers.get("host", "")
        # a name that leads here by DNS rebinding is not ours
        if self.local and _host_name(host) not in LOOPBACK:
            return "host"
        origin = connection.headers.get("origin")
        if origin is None or origin in self.origins:
            return None
        scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
        return None if origin.lower() == f"{scheme}://{host}".lower() else "origin"

    def knows(self, request: Request) -> bool:
        """Whether a request carries the token, where there is one."""
        if self.token is None:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())


class Headers:
    """Puts the security headers on every answer, and refuses requests that the gate does not let in."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                    *message.get("headers", ()),
                ]
            await send(message)

        app: ASGIApp = self._app
        if (reason := self._gate.refusal(HTTPConnection(scope))) is not None:
            app = PlainTextResponse(f"this {reason} is not served", status_code=403)
        await app(scope, receive, answer)


def make_app(multi: MultiStream, *, gate: Gate, limits: Limits | None = None) -> Starlette:
    """The application around an engine that visitors share; the caller closes `multi`."""
    limits = limits or Limits()
    metrics = Metrics()
    workers = ThreadPoolExecutor(DECODERS, thread_name_prefix="avgn-web")
    counts = {"sessions": 0, "waiting": 0}

    async def health(request: Request) -> Response:
        failed = multi.error is not None
        body = {"status": "failed" if failed else "ok", "sessions": counts["sessions"], "engine": multi.engine.name}
        return JSONResponse(body, status_code=503 if failed else 200)

    async def show_metrics(request: Request) -> Response:
        if not gate.knows(request):
            return PlainTextResponse("the token is missing or wrong: send Authorization: Bearer", status_code=401)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def stream(socket: WebSocket) -> None:
        reason = gate.refusal(socket)
        if reason is None and counts["waiting"] >= WAITING * limits.sessions:
            reason = "crowd"
        if reason is not None:
            # before it is accepted, closing answers with status 403
            metrics.refused.labels(reason).inc()
            await socket.close(wire.POLICY)
            return
        await socket.accept()
        try:
            await _serve(socket)
        except WireError as error:
            metrics.closed.labels(str(error.code)).inc()
            await _close(socket, error.code, reason_of(error))
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("a visitor's session failed")
            metrics.closed.labels(str(wire.FAILED)).inc()
            await _close(socket, wire.FAILED, "the server failed")

    async def _serve(socket: WebSocket) -> None:
        session = Session(socket, multi, workers, limits, metrics, gate.token)
        counts["waiting"] += 1
        try:
            await session.greet()
        finally:
            counts["waiting"] -= 1
        if counts["sessions"] >= limits.sessions:
            raise WireError(wire.FULL, f"the server is full: {limits.sessions} visitors")
        counts["sessions"] += 1
        metrics.sessions_total.inc()
        metrics.sessions.set(counts["sessions"])
        try:
            await session.run()
        finally:
            counts["sessions"] -= 1
            metrics.sessions.set(counts["sessions"])

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        workers.shutdown(wait=False, cancel_futures=True)

    return Starlette(
        routes=[
            Route("/healthz", health),
            Route("/metrics", show_metrics),
            WebSocketRoute("/stream", stream),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Headers, gate=gate)],
        lifespan=lifespan,
    )


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(socket.close(code, reason), 2.0)


def _host_name(host: str) -> str:
    """The name of a Host header without its port."""
    return (urlsplit(f"//{host}").hostname or "") if host.count("@") == 0 else ""
