"""Puts a file's timestamps on one clock, in seconds from its first picture or sound, whatever they begin at.

Timestamps are believed as far as they can be: a single one that leaps is replaced, a clock that begins anew goes on
where it was, and a time without picture and sound is skipped when it is longer than MAX_GAP seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from avgn.runtime.limits import MAX_GAP

T = TypeVar("T")

# seconds that timestamps may step back before their clock counts as begun anew
MAX_BACK = 1.0
# seconds by which two tracks may disagree about where a new clock goes on
MAX_SPLICE = 2.0
# spans (start, end) in seconds in which another track has something
Content = Callable[[float, float], Iterable[tuple[float, float]]]


class Timeline:
    """What is known about a file's clock; all readers of the file share it, so that they stay in step."""

    def __init__(self) -> None:
        self.shifts = [0.0]
        self._starts: list[float] = []
        self._ends: list[float] = []
        # seconds taken out before each gap, and one more: before what follows the last
        self._removed = [0.0]

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """The spans that are skipped, in seconds before any was taken out."""
        return list(zip(self._starts, self._ends, strict=True))

    def time(self, at: float) -> float:
        """Return seconds with the gaps taken out; a moment inside a gap is its start."""
        before = bisect_right(self._starts, at)
        if before and at < self._ends[before - 1]:
            return self._starts[before - 1] - self._removed[before - 1]
        return at - self._removed[before]

    def skip(self, start: float, end: float, content: Content | None) -> None:
        """Take out what is longer than MAX_GAP in start .. end and holds neither known gaps nor `content`."""
        cursor = start
        known = [(first, last) for first, last in self.gaps if last > start and first < end]
        there = sorted([*known, *(content(start, end) if content is not None else ())])
        for first, last in [*there, (end, end)]:
            if first - cursor > MAX_GAP:
                self._add(cursor, min(first, end))
            cursor = max(cursor, last)

    def _add(self, start: float, end: float) -> None:
        place = bisect_left(self._starts, start)
        self._starts.insert(place, start)
        self._ends.insert(place, end)
        del self._removed[place + 1 :]
        for first, last in zip(self._starts[place:], self._ends[place:], strict=True):
            self._removed.append(self._removed[-1] + last - first)


class Placer:
    """Gives the pieces of one track their times on the file's clock."""

    def __init__(self, timeline: Timeline, start: float, content: Content | None) -> None:
        """`start`: seconds at which the track's first piece is; `content`: what another track has."""
        self.timeline = timeline
        self._expected = start
        self._segment = 0
        self._content = content

    def place(self, stamp: float | None, duration: float, following: Callable[[], float | None]) -> float:
        """Return the time of a piece with this timestamp, None where it has none; `following` looks at the next
        one's."""
        at = self._expected if stamp is None else self._locate(stamp, duration, following)
        self._expected = at + duration
        return self.timeline.time(at)

    def _locate(self, stamp: float, duration: float, following: Callable[[], float | None]) -> float:
        at = stamp + self.timeline.shifts[self._segment]
        jump = at - self._expected
        if -MAX_BACK <= jump <= MAX_GAP:
            return at
        after = following()
        if after is not None:
            back = after + self.timeline.shifts[self._segment] - self._expected - duration
            if -MAX_BACK <= back <= MAX_GAP and abs(after - stamp) > MAX_BACK:
                # one timestamp that leaps: the next goes on where the last one was
                return self._expected
        if jump < 0:
            return self._begin_anew(stamp)
        self.timeline.skip(self._expected, at, self._content if self._segment == 0 else None)
        return at

    def _begin_anew(self, stamp: float) -> float:
        shifts = self.timeline.shifts
        self._segment += 1
        # the other track may have said already where the new clock goes on
        if self._segment == len(shifts) or abs(stamp + shifts[self._segment] - self._expected) > MAX_SPLICE:
            shifts.append(self._expected - stamp)
            self._segment = len(shifts) - 1
        return stamp + shifts[self._segment]


class Peekable(Generic[T]):
    """An iterator whose next item can be looked at."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._ahead: list[T] = []

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._ahead.pop() if self._ahead else next(self._items)

    def peek(self) -> T | None:
        """Return the next item, None at the end."""
        if not self._ahead:
            found = next(self._items, None)
            if found is None:
                return None
            self._ahead.append(found)
        return self._ahead[0]
