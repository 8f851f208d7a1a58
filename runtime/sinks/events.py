"""Events as CSV: when each source was heard, from when to when, and where it was in the picture in the mean."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avgn.runtime.result import Result
from avgn.runtime.sinks.partial import TextOutput

COLUMNS = ("class", "start", "end", "on_screen", "mean_x", "mean_y", "frames")


@dataclass
class Event:
    """A class that sounds; its position is summed up over the frames that show it."""

    start: float
    end: float
    frames: int = 0
    shown: int = 0
    x: float = 0.0
    y: float = 0.0


class EventsWriter(TextOutput):
    """Writes one row per source and appearance, times in seconds, positions from 0 to 1 (empty where never on screen).

    `on_screen` is the share of the event's frames that show it. Rows come in the order in which events end; the file
    appears on close. Raises InputError when it can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], *inputs: Path) -> None:
        """`inputs`: files that the output must not replace."""
        super().__init__(path, *inputs)
        self._rows = csv.writer(self)
        self._open: dict[str, Event] = {}
        self._rows.writerow(COLUMNS)

    def __call__(self, result: Result, rgb: npt.NDArray[np.uint8] | None = None) -> None:
        heard = {source.label: source for source in result.sources}
        for label in [label for label in self._open if label not in heard]:
            self._end(label)
        for label, source in heard.items():
            event = self._open.setdefault(label, Event(result.time, result.time))
            event.end = result.time
            event.frames += 1
            if source.peak is not None:
                event.shown += 1
                event.x += source.peak[0]
                event.y += source.peak[1]

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file with the events that still go on."""
        for label in list(self._open):
            self._end(label)
        super().close(interrupted=interrupted)

    def _end(self, label: str) -> None:
        event = self._open.pop(label)
        place = [f"{value / event.shown:.4f}" for value in (event.x, event.y)] if event.shown else ["", ""]
        share = f"{event.shown / event.frames:.3f}"
        self._rows.writerow((label, f"{event.start:.3f}", f"{event.end:.3f}", share, *place, event.frames))
