"""The times of a connection's pictures and sound on the clock of their source."""

from __future__ import annotations

import logging
from collections.abc import Callable

from avgn.runtime.sources.drift import CaptureClock

log = logging.getLogger("avgn.runtime")

# seconds that a stream's timestamps may be ahead of or behind the wall clock before they are not believed
JUMP = 2.0
# a clock whose error has grown to this share of a jump, piece by piece, does not jump: it runs at another speed
GRADUAL = 0.5
# seconds after its first piece in which a connection hands on what it read while it was made; a server that kept more
# for newcomers sends up to BACKLOG seconds, faster than CATCHING_UP times as fast as they lasted
BURST = 0.5
BACKLOG = 30.0
CATCHING_UP = 3.0


class WallClock:
    """Seconds since the very first piece of a source; `move` makes it later."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.begin: float | None = None

    def __call__(self) -> float:
        now = self._now()
        if self.begin is None:
            self.begin = now
        return now - self.begin

    def move(self, seconds: float) -> None:
        if self.begin is not None:
            self.begin -= seconds


class Times:
    """Puts a connection's timestamps on the source's clock: its first one is the moment it came.

    Pieces that were read while connecting come at once although they lasted longer: they move the wall clock, so that
    the newest of them is now. Where a kind's own clock runs at another speed than the wall's, or
    there are no timestamps, the moments of arrival count from then on.
    """

    def __init__(self, wall: WallClock, jump: float = JUMP, *, has_stamps: bool = True) -> None:
        """`has_stamps` False: pictures of this connection have no times of their own."""
        self._wall = wall
        self._jump = jump
        # the newest first: pieces from before a jump still come after it, out of the decoder
        self._offsets: list[float] = []
        self._last: dict[str, float] = {}
        self._error: dict[str, float] = {}
        self._arriving = set() if has_stamps else {"video"}
        self._heard: CaptureClock | None = None
        self._opened: float | None = None
        self._first = 0.0

    def frame(self, stamp: float | None) -> float:
        """Return the time of a picture in seconds; never before the one before."""
        time = self._of("video", stamp)
        self._last["video"] = max(time, self._last.get("video", time))
        return self._last["video"]

    def audio(self, stamp: float | None, samples: int, rate: int) -> float:
        """Return the time of a block of sound in seconds; what runs backwards is left to who already heard it."""
        time = self._of("audio", stamp)
        if "audio" not in self._arriving:
            return time
        if self._heard is None or self._heard.rate != rate:
            self._heard = CaptureClock(rate)
        # its end has arrived
        return self._heard.block(samples, time - samples / rate)

    def _of(self, kind: str, stamp: float | None) -> float:
        now = self._wall()
        if stamp is None:
            self._arriving.add(kind)
        if kind in self._arriving or stamp is None:
            return now
        if self._opened is None:
            self._opened, self._first = now, stamp
            self._offsets = [now - stamp]
        time = next((stamp + offset for offset in self._offsets if abs(stamp + offset - now) < self._jump), None)
        if time is None:
            time = now
            if abs(self._error.get(kind, 0.0)) > GRADUAL * self._jump:
                log.warning("the stream's clock does not keep time: the times at which its pieces arrive are used")
                self._arriving.add(kind)
                return now
            log.warning("the stream's clock jumped by %.1f s: it is set again", stamp + self._offsets[0] - now)
            self._offsets = [now - stamp, self._offsets[0]]
        self._error[kind] = time - now
        if time > now and self._is_catching_up(stamp, now):
            self._wall.move(time - now)
            self._opened += time - now
            self._error[kind] = 0.0
        return time

    def _is_catching_up(self, stamp: float, now: float) -> bool:
        """Return whether a piece belongs to what was waiting when the connection was made."""
        assert self._opened is not None
        elapsed, lasted = now - self._opened, stamp - self._first
        return elapsed < BURST or CATCHING_UP * elapsed < lasted < BACKLOG
