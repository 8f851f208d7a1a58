"""What a visitor may cost: rates, sizes, numbers and times."""

from __future__ import annotations

from dataclasses import dataclass

from avgn.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one server. Times in seconds, sizes in bytes; rates are means over `burst` seconds."""

    sessions: int = 8
    idle: float = 30.0
    hello: float = 5.0
    message_bytes: int = 256 * 1024
    messages_per_second: float = 150.0
    bytes_per_second: float = 3e6
    burst: float = 2.0
    send: float = 10.0
    # how far a visitor's clock may run away from the server's
    clock: float = 10.0

    def __post_init__(self) -> None:
        if self.sessions < 1:
            raise InputError(f"--max-sessions must be at least 1, got {self.sessions}")
        if not self.idle > 0:
            raise InputError(f"--idle-timeout must be above 0 seconds, got {self.idle}")


class Bucket:
    """A token bucket: refills at `rate` a second up to `rate * burst`."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._most = self._left = rate * burst
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Whether `amount` was still there."""
        self._left = min(self._most, self._left + self._rate * (now - self._at))
        self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
