"""What a visitor may cost: rates, sizes, numbers and times."""

from __future__ import annotations

from dataclasses import dataclass

from avgn.runtime.errors import InputError

# seconds of our own standstill that are made good to a visitor
LONGEST_STALL = 120.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one server. Times in seconds, sizes in bytes; rates are means over `burst` seconds."""

    # who sends pictures or sound, and who only looks
    sessions: int = 8
    lookers: int = 64
    # connections that have not shown a token yet, of all addresses and of one
    strangers: int = 256
    strangers_of_one: int = 48
    # seconds in which nobody makes room for others
    grace: float = 0.5
    # until a request is complete, until its answer is gone, until a socket said hello, without a message
    request: float = 10.0
    answer: float = 30.0
    hello: float = 5.0
    idle: float = 30.0
    # until a result that nobody reads ends its session
    send: float = 10.0
    # how far a visitor's clock may run away from the server's
    clock: float = 10.0
    message_bytes: int = 256 * 1024
    header_bytes: int = 16 * 1024
    # that wait for a visitor who does not read them
    outgoing_bytes: int = 512 * 1024
    # frames of a connection of any kind: messages, their fragments, pings
    messages_per_second: float = 150.0
    bytes_per_second: float = 3e6
    burst: float = 4.0
    # beyond these, pictures are passed over for newer ones; while the machine is busy beyond the fair ones, which are
    # more than the page sends
    frames_per_second: float = 60.0
    pixels_per_second: float = 10e6
    fair_frames: float = 34.0
    fair_pixels: float = 3.5e6
    # seconds of sound a second, those that may come at once, and those that may come at once in the beginning
    audio_rate: float = 1.1
    audio_burst: float = 15.0
    audio_begin: float = 3.0
    # resets and ends of sound
    resets_per_second: float = 1.0
    reset_burst: float = 10.0
    # what visitors who teach ask for
    lessons_per_second: float = 1.0
    lesson_burst: float = 10.0
    # of an address: beyond these, answers wait for up to a second
    requests_per_second: float = 100.0
    request_burst: float = 300.0
    # the same of sockets
    sockets_per_second: float = 40.0
    socket_burst: float = 100.0
    # between two answers to wrong tokens of an address
    token_delay: float = 0.5

    def __post_init__(self) -> None:
        if self.sessions < 1:
            raise InputError(f"--max-sessions must be at least 1, got {self.sessions}")
        if not self.idle > 0:
            raise InputError(f"--idle-timeout must be above 0 seconds, got {self.idle}")


class Bucket:
    """A token bucket: refills at `rate` a second up to `rate * burst`.

    Time in which the server stood still is made good in full: what piled up meanwhile is not the visitor's doing.
    """

    def __init__(self, rate: float, burst: float, now: float, stalled: float = 0.0, begin: float | None = None) -> None:
        """`begin`: what is in it first, when it is not full."""
        self._rate = rate
        self._most = self._left = rate * burst
        if begin is not None:
            self._left = begin
        self._at = now
        self._stalled = stalled
        self._extra = 0.0

    def take(self, amount: float, now: float, stalled: float = 0.0) -> bool:
        """Return whether `amount` was still there; `stalled`: the seconds that the server has stood still so far."""
        self._extra = min(LONGEST_STALL * self._rate, self._extra + self._rate * (stalled - self._stalled))
        self._left = min(self._most, self._left + self._rate * (now - self._at))
        self._at, self._stalled = now, stalled
        if amount > self._left + self._extra:
            return False
        spent = min(amount, self._left)
        self._left -= spent
        self._extra -= amount - spent
        return True
