"""What a run over a file did and found, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from avgn.runtime.result import Result


@dataclass(frozen=True, kw_only=True)
class Second:
    """What was found in one second of video: how many of its frames showed each label."""

    second: int
    frames: int
    on_screen: dict[str, int]
    off_screen: dict[str, int]
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did.

    `seconds` of video in `wall_seconds`; `real_time_factor` is their ratio (below 1: faster than real time). `ms`
    holds the mean milliseconds per frame of each stage; stages run in parallel threads.
    """

    engine: str
    frames: int
    seconds: float
    wall_seconds: float
    ms: dict[str, float]
    audio_windows: int
    corrupt_frames: int
    table: tuple[Second, ...] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def real_time_factor(self) -> float:
        return self.wall_seconds / self.seconds if self.seconds else 0.0

    def lines(self) -> list[str]:
        """Return a table for people."""
        rows = ["second  frames  sources (share of the frames)"]
        for second in self.table:
            found = [f"{label} {100 * n // second.frames}%" for label, n in second.on_screen.items()]
            found += [f"off-screen {label} {100 * n // second.frames}%" for label, n in second.off_screen.items()]
            found += [f"unknown sound {100 * second.unknown // second.frames}%"] if second.unknown else []
            rows.append(f"{second.second:6d}  {second.frames:6d}  {', '.join(found) or '-'}")
        stages = ", ".join(f"{name} {value:.2f}" for name, value in self.ms.items())
        rows.append(f"{self.frames} frames, {self.seconds:.2f} s of video in {self.wall_seconds:.2f} s")
        rows.append(f"{self.frames_per_second:.1f} frames/s, real-time factor {self.real_time_factor:.3f}")
        rows.append(f"ms per frame: {stages}")
        return rows


class Tally:
    """Counts what a run gives: the labels of each second, and the milliseconds of each stage."""

    def __init__(self) -> None:
        self.last_time = 0.0
        self._seconds: dict[int, dict[str, Any]] = {}
        self._ms: dict[str, float] = {}

    def add(self, result: Result) -> None:
        self.last_time = max(self.last_time, result.time)
        for stage, ms in result.ms.items():
            self._ms[stage] = self._ms.get(stage, 0.0) + ms
        row = self._seconds.setdefault(int(result.time // 1), {"frames": 0, "on": {}, "off": {}, "unknown": 0})
        row["frames"] += 1
        row["unknown"] += result.state == "unknown"
        for source in result.sources:
            counts = row["on" if source.on_screen else "off"]
            counts[source.label] = counts.get(source.label, 0) + 1

    def mean_ms(self, frames: int) -> dict[str, float]:
        """Return the mean milliseconds per frame of each stage."""
        return {stage: ms / max(1, frames) for stage, ms in self._ms.items()}

    def table(self) -> tuple[Second, ...]:
        """Return what was found in each second that has frames."""
        return tuple(
            Second(
                second=second, frames=row["frames"], on_screen=row["on"], off_screen=row["off"], unknown=row["unknown"]
            )
            for second, row in sorted(self._seconds.items())
        )
