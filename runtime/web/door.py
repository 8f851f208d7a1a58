"""Everybody who is connected: how many may be, for how long at which stage, and who goes where there is no room.

A newcomer is never refused for those who only wait: the one that has waited longest, of the address that has most,
makes room. Times in which the server itself stood still count for nobody.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import time as clock
from collections import Counter
from collections.abc import Sequence
from typing import Any

from avgn.runtime.web import wire
from avgn.runtime.web.limits import Bucket, Limits
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.pace import Pace
from avgn.runtime.web.wire import WireError

# seconds between two looks at everybody, and what is a standstill between them
WATCH = 0.25
STANDSTILL = 2 * WATCH
# seconds in which a closed connection may still read why
PARTING = 2.0
# seconds that a request waits at most for those before it
LONGEST_PAUSE = 1.0


class Stage(enum.Enum):
    """How far a connection has come."""

    REQUEST = "request"
    ANSWER = "answer"
    HELLO = "hello"
    REGRET = "regret"
    LOOKING = "looking"
    PLACE = "place"


# who has yet to say something, or said something wrong
WAITING = (Stage.REQUEST, Stage.HELLO, Stage.REGRET)
# how many times more than may wait are let in for a moment
CROWD = 4


class Visit:
    """One connection from its first byte to its last."""

    def __init__(self, door: Door, transport: Any, address: str) -> None:
        self.door = door
        self.address = address
        self.has_left = False
        # whether a session was closed by us, with a reason
        self.was_told = False
        # an answer that a refused socket gets in place of the library's
        self.instead = b""
        self.stage = Stage.REQUEST
        self.arrived = clock.monotonic()
        self._transport = transport
        self._left = asyncio.Event()
        self._ending: asyncio.Future[WireError] | None = None
        self._since = self._used = (self.arrived, door.stalled(self.arrived))
        limits = door.limits
        self._frames = Bucket(limits.messages_per_second, limits.burst, *self._since)
        self._bytes = Bucket(limits.bytes_per_second, limits.burst, *self._since)

    def enter(self, stage: Stage) -> None:
        """Come to a stage, whose time begins."""
        self.stage = stage
        self.touch()
        if stage is Stage.LOOKING:
            self.door.make_room()

    def touch(self) -> None:
        """Begin the stage's time anew."""
        now = clock.monotonic()
        self._since = (now, self.door.stalled(now))

    def use(self) -> None:
        """Note that pictures or sound came just now."""
        self._used = (self.arrived, self.door.stalled(self.arrived))

    def waited(self, now: float) -> float:
        """Return seconds that the visitor has been given since the stage began, or the last message came."""
        return self._since_mark(self._since, now)

    def unused(self, now: float) -> float:
        """Return seconds without pictures or sound."""
        return self._since_mark(self._used, now)

    def _since_mark(self, mark: tuple[float, float], now: float) -> float:
        return (now - mark[0]) - (self.door.stalled(now) - mark[1])

    @property
    def is_leaving(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.has_left or bool(self._transport.is_closing())

    def take(self, frames: int, size: int) -> bool:
        """Count what just came, whatever it is; False ends the visit, for it was too much."""
        now = self.arrived = clock.monotonic()
        stalled = self.door.stalled(now)
        return self._frames.take(frames, now, stalled) and self._bytes.take(size, now, stalled)

    def ending(self) -> asyncio.Future[WireError]:
        """Return what a session waits for beside its messages: the reason why it must end."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_future()
        return self._ending

    def end(self, error: WireError) -> None:
        """End the visit: a session gets the reason, anything else is cut off."""
        if self._ending is None:
            self.drop()
        elif not self._ending.done():
            self._ending.set_result(error)

    def drop(self) -> None:
        """Cut the connection off, with all that waits to be sent."""
        self._transport.abort()

    async def part(self) -> None:
        """Let a closed connection read its last message, but not for long."""
        cut = asyncio.get_running_loop().call_later(PARTING, self.drop)
        # uvicorn closes when this returns, and what was not read of a flood would take the message with it
        if not self.is_leaving:
            await self._left.wait()
            cut.cancel()


class Door:
    """The connections of one server. Everything runs in its event loop."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.visits: dict[Visit, None] = {}
        self.requests = Pace(1 / limits.requests_per_second, limits.request_burst, LONGEST_PAUSE)
        self.sockets = Pace(1 / limits.sockets_per_second, limits.socket_burst, LONGEST_PAUSE)
        self._stalled = 0.0
        self._looked = clock.monotonic()

    def enter(self, transport: Any) -> Visit:
        """Take a new connection."""
        visit = Visit(self, transport, address_of(transport.get_extra_info("peername")))
        self.visits[visit] = None
        self.make_room()
        return visit

    def leave(self, visit: Visit) -> None:
        """Forget a connection that is lost."""
        visit.has_left = True
        visit._left.set()
        self.visits.pop(visit, None)

    def count(self, *stages: Stage) -> int:
        """Return how many have come to one of these stages, and no further."""
        return sum(visit.stage in stages for visit in self.visits)

    def stalled(self, now: float) -> float:
        """Return seconds that the server has stood still so far: stopped, starved, or busy with something else."""
        if now - self._looked > STANDSTILL:
            self._stalled += now - self._looked
            self._looked = now
        return self._stalled

    def make_room(self) -> None:
        """Let those go who have waited longest where more wait than may."""
        limits = self.limits
        self._trim(WAITING, limits.strangers, limits.strangers_of_one)
        self._trim((Stage.LOOKING,), limits.lookers, limits.lookers)
        # whose request is complete waits for us alone
        self._trim((Stage.ANSWER,), limits.strangers, limits.strangers)

    def _trim(self, stages: Sequence[Stage], most: int, most_of_one: int) -> None:
        waiting = [visit for visit in self.visits if visit.stage in stages]
        now = clock.monotonic()
        while waiting:
            address, largest = Counter(visit.address for visit in waiting).most_common(1)[0]
            if len(waiting) <= most and largest <= most_of_one:
                return
            oldest = min((visit for visit in waiting if visit.address == address), key=lambda visit: visit._since[0])
            # in a crowd that came at once, nobody has had the time to say anything
            if now - oldest._since[0] < self.limits.grace and largest <= CROWD * most_of_one:
                return
            self._let_go(oldest)
            waiting.remove(oldest)

    def _let_go(self, oldest: Visit) -> None:
        self.metrics.refused.labels("crowd").inc()
        if oldest.stage is Stage.LOOKING:
            oldest.end(WireError(wire.FULL, "others wait: come again"))
        else:
            oldest.drop()
        # it counts no more, even if its end takes a moment
        self.visits.pop(oldest, None)

    async def watch(self) -> None:
        """Look at everybody's time again and again."""
        while True:
            await asyncio.sleep(WATCH)
            now = clock.monotonic()
            self.stalled(now)
            self._looked = now
            self.make_room()
            for visit in list(self.visits):
                self._check_time(visit, now)

    def _check_time(self, visit: Visit, now: float) -> None:
        limits = self.limits
        waited = visit.waited(now)
        if visit.stage in (Stage.LOOKING, Stage.PLACE):
            if waited > limits.idle:
                visit.end(WireError(wire.IDLE, f"nothing came for {limits.idle:.0f} s"))
            return
        if visit.stage is Stage.HELLO:
            if waited > limits.hello:
                visit.end(WireError(wire.IDLE, f"no hello came for {limits.hello:.0f} s"))
        elif waited > (limits.request if visit.stage is Stage.REQUEST else limits.answer):
            self.metrics.refused.labels("slow").inc()
            visit.drop()


def address_of(peer: Any) -> str:
    """Whom a connection counts for: an IPv4 address, the network of an IPv6 one, or "" where there is neither."""
    try:
        found = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except (TypeError, IndexError, ValueError):
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
