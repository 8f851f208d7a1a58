"""Runs the application in uvicorn: its event loop, its logs, its limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from avgn.runtime.web.app import Application
from avgn.runtime.web.door import Door
from avgn.runtime.web.gate import ConnectionGate, Heading
from avgn.runtime.web.lessons import Teacher
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.protocols import Loop, make_protocols
from avgn.runtime.web.seldom import Quiet, Seldom
from avgn.runtime.web.shared import SharedEngine

STOP_SECONDS = 3
# what libraries say about requests
LOUD = ("uvicorn.error", "uvicorn.asgi", "asyncio", "websockets")
# open files that many connections need; most systems begin with 1024
FILES = 4096

log = logging.getLogger("avgn.runtime")


def run(
    shared: SharedEngine,
    listening: socket.socket,
    *,
    gate: ConnectionGate,
    limits: Limits,
    certificate: str | None,
    key: str | None,
    control: Callable[[Any], None],
    teacher: Teacher | None = None,
) -> None:
    """Serve until interrupted; `control` is given uvicorn's server first."""
    allow_files(FILES)
    heading = Heading(tls=certificate is not None)
    door = Door(limits, Metrics())
    http, web_socket = make_protocols(door, heading)
    config = uvicorn.Config(
        Application(shared, gate, door, heading, teacher).build(),
        http=http,
        ws=web_socket,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=limits.message_bytes,
        # whoever is alive says so in messages of its own
        ws_ping_interval=None,
        # compressed messages could unpack to anything
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = uvicorn.Server(config)
    control(server)
    with quiet():
        _run(server, listening)


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    loop = Loop()
    seldom = Seldom()

    def say(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """One line in place of a traceback for what a connection broke."""
        what = f"{context.get('message', '')} ({type(context.get('exception')).__name__})"
        if times := seldom.count(what):
            log.warning("%s, %d times", what, times)

    loop.set_exception_handler(say)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(server.serve(sockets=[listening]))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


@contextlib.contextmanager
def quiet() -> Any:
    """Keep libraries from writing a line for every bad request."""
    filters = [(logging.getLogger(name), Quiet()) for name in LOUD]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


def allow_files(count: int) -> None:
    """Let this process open so many files, as far as the system lets it."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
