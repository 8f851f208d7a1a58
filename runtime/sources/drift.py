"""The time of a microphone's blocks on the monotonic clock, without the jitter of their arrival."""

from __future__ import annotations

# seconds: errors decay with this time constant, far above jitter and far below what drift needs to be heard
SMOOTHING = 2.0
# a larger error is no drift: the device stood still, or the machine slept
JUMP = 0.25
MAX_DRIFT = 0.02


class CaptureClock:
    """Follows a device that counts its own samples: a second-order loop on when its blocks were captured.

    `drift` is the measured deviation of the device's rate (1e-4: 100 ppm too fast).
    """

    def __init__(self, rate: int) -> None:
        if rate < 1:
            raise ValueError(f"the rate must be at least 1 Hz, got {rate}")
        self.rate = rate
        self.drift = 0.0
        self.jumps = 0
        self._next: float | None = None

    def block(self, samples: int, captured: float) -> float:
        """Return the time of a block's first sample, from its length and the moment at which that sample was
        captured."""
        length = samples / self.rate
        if self._next is None:
            self._next = captured
        error = captured - self._next
        if abs(error) > JUMP:
            self.jumps += 1
            self._next, error = captured, 0.0
        share = min(1.0, length / SMOOTHING)
        time = self._next + share * error
        # critically damped: the rate follows the square of the share; a fast device captures early, so its error is
        # negative
        self.drift = min(MAX_DRIFT, max(-MAX_DRIFT, self.drift - 0.25 * share * error / SMOOTHING))
        self._next = time + length / (1 + self.drift)
        return time
