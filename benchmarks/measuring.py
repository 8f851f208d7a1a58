"""Times calls that take turns, for all speed benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

WARM_UP_ROUNDS = 2


class Turns:
    """Holds the seconds of calls that took turns, so that a busy machine hurts them alike: `wall` and `cpu` [rounds] by
    name."""

    def __init__(self, calls: Mapping[str, Callable[[], object]], seconds: float, least: int = 5) -> None:
        """Run rounds for about `seconds`, but at least `least` rounds, after WARM_UP_ROUNDS that don't count."""
        self.wall: dict[str, npt.NDArray[np.float64]] = {}
        self.cpu: dict[str, npt.NDArray[np.float64]] = {}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < WARM_UP_ROUNDS + least or time.perf_counter() < end:
            for name, call in calls.items():
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                wall = time.perf_counter() - wall
                if rounds >= WARM_UP_ROUNDS:
                    taken[name].append((wall, time.process_time() - cpu))
            rounds += 1
        for name, values in taken.items():
            self.wall[name], self.cpu[name] = np.array(values).T

    def milliseconds(self, name: str) -> dict[str, float]:
        """Return p20, p50 and p80 of the wall time and the median of the CPU time."""
        p20, p50, p80 = (round(1e3 * float(v), 3) for v in np.quantile(self.wall[name], (0.2, 0.5, 0.8)))
        return {"p20": p20, "p50": p50, "p80": p80, "cpu": round(1e3 * float(np.median(self.cpu[name])), 3)}

    def ratio(self, slow: tuple[str, ...], fast: tuple[str, ...]) -> dict[str, float]:
        """Return how many times faster the calls `fast` together are than `slow` together: the median over the
        rounds."""
        return {
            kind: round(float(np.median(sum(times[n] for n in slow) / sum(times[n] for n in fast))), 3)
            for kind, times in (("wall", self.wall), ("cpu", self.cpu))
        }
