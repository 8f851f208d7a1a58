"""Events as CSV: when each source was heard, from when to when, and where it was in the picture in the mean."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avgn.runtime.outputs import TextOutput
from avgn.runtime.result import Result

# what spreadsheets take for the beginning of a formula
FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")
COLUMNS = ("class", "start", "end", "on_screen", "mean_x", "mean_y", "frames")


@dataclass
class Event:
    """A class that sounds; its position is summed up over the frames that show it."""

    label: str
    start: float
    end: float
    frames: int = 0
    shown: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def place(self) -> tuple[float, float] | None:
        """Its mean position (x, y), None where it was never on screen."""
        return (self.x / self.shown, self.y / self.shown) if self.shown else None

    @property
    def share(self) -> float:
        """The share of its frames that show it."""
        return self.shown / self.frames


class EventFollower:
    """Puts the results of a stream, one after the other, together into events."""

    def __init__(self) -> None:
        self._open: dict[str, Event] = {}

    def add(self, result: Result) -> list[Event]:
        """Take a frame's result; returns the events that ended before it."""
        heard = {source.label: source for source in result.sources}
        ended = [self._open.pop(label) for label in list(self._open) if label not in heard]
        for label, source in heard.items():
            event = self._open.setdefault(label, Event(label, result.time, result.time))
            event.end = result.time
            event.frames += 1
            if source.peak is not None:
                event.shown += 1
                event.x += source.peak[0]
                event.y += source.peak[1]
        return ended

    def finish(self) -> list[Event]:
        """Return the events that still go on at the end of the stream."""
        ended, self._open = list(self._open.values()), {}
        return ended


def cell(text: str) -> str:
    """Return a name as a spreadsheet shows it: one that a spreadsheet would compute or break gets an apostrophe
    before it."""
    return f"'{text}" if text.startswith(FORMULA) else text


class EventsWriter(TextOutput):
    """Writes one row per source and appearance, times in seconds, positions from 0 to 1 (empty where never on screen).

    `on_screen` is the share of the event's frames that show it. Rows come in the order in which events end; the file
    appears on close. Raises InputError when it can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], *inputs: Path) -> None:
        """`inputs`: files that the output must not replace."""
        super().__init__(path, *inputs)
        self._rows = csv.writer(self)
        self._follower = EventFollower()
        self._rows.writerow(COLUMNS)

    def __call__(self, result: Result, rgb: npt.NDArray[np.uint8] | None = None) -> None:
        self._write(self._follower.add(result))

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file with the events that still go on."""
        if self.closed:
            return
        self._write(self._follower.finish())
        super().close(interrupted=interrupted)

    def _write(self, events: list[Event]) -> None:
        for event in events:
            place = ["", ""] if event.place is None else [f"{value:.4f}" for value in event.place]
            times = (f"{event.start:.3f}", f"{event.end:.3f}", f"{event.share:.3f}")
            self._rows.writerow((cell(event.label), *times, *place, event.frames))
