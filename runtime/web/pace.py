"""Turns of many, one after another: each address has its own line."""

from __future__ import annotations

import time as clock

# addresses that are remembered; of more, the one not seen for longest is forgotten
MOST = 1000


class Pace:
    """Gives each address a turn every `gap` seconds, `burst` of them at once; nobody waits longer than `longest`."""

    def __init__(self, gap: float, burst: float, longest: float) -> None:
        self._gap = gap
        self._ahead = burst * gap
        self._longest = longest
        self._next: dict[str, float] = {}

    def wait(self, address: str) -> float:
        """Return the seconds to wait for the next turn, which is taken."""
        now = clock.monotonic()
        turn = max(now, self._next.pop(address, now)) + self._gap
        wait = max(0.0, turn - now - self._ahead)
        if wait > self._longest:
            wait, turn = self._longest, now + self._ahead + self._longest
        self._next[address] = turn
        while len(self._next) > MOST:
            del self._next[next(iter(self._next))]
        return wait
