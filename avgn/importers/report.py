"""Gathers what an import found: counts, and the ids that have a problem, by its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item

NUM_EXAMPLES = 5


@dataclass
class Report:
    """Holds `counts`, and `problems`: ids by kind of problem; the kinds in `harmless` don't stop a strict import."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    harmless: set[str] = field(default_factory=set)

    def problem(self, kind: str, id: str, *, harmless: bool = False) -> None:
        """Note a problem of an id; `harmless` marks what is known to occur in the public annotations."""
        if harmless:
            self.harmless.add(kind)
        self.problems.setdefault(kind, []).append(id)

    def refuse(self) -> None:
        """Raise InputError if there is any problem that isn't harmless (for --strict)."""
        if found := {kind: ids for kind, ids in self.problems.items() if kind not in self.harmless}:
            kinds = "; ".join(f"{len(ids)} {kind} ({_some(ids)})" for kind, ids in found.items())
            raise InputError(f"--strict: {kinds}: mend the files or import without --strict")

    def describe(self, items: Iterable[Item]) -> None:
        """Add the counts of the items, their sources and videos."""
        listed = list(items)
        self.counts["items"] = len(listed)
        self.counts["sources"] = sum(len(item.sources) for item in listed)
        self.counts["sources with boxes or masks"] = sum(
            bool(source.boxes or source.mask) for item in listed for source in item.sources
        )
        self.counts["videos"] = len({item.video for item in listed})

    def lines(self, items: Iterable[Item]) -> list[str]:
        """Format for people: counts, the shares of the largest videos, problems."""
        lines = [f"{name}: {count}" for name, count in self.counts.items() if count]
        videos = Counter(item.video for item in items)
        total = sum(videos.values())
        if total and len(videos) < total:
            largest = ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in videos.most_common(NUM_EXAMPLES))
            lines.append(f"largest videos: {largest}")
        lines += [f"{kind}: {len(ids)} ({_some(ids)})" for kind, ids in self.problems.items()]
        return lines + self.notes

    def to_json(self, items: Iterable[Item]) -> dict[str, Any]:
        """Return everything as JSON, with the share of every video."""
        videos = Counter(item.video for item in items)
        return {
            "counts": dict(self.counts),
            "problems": self.problems,
            "notes": self.notes,
            "videos": dict(videos.most_common()),
        }


def _some(ids: list[str]) -> str:
    # many frames may miss the sound of one video
    names = list(dict.fromkeys(ids))
    return ", ".join(names[:NUM_EXAMPLES]) + (", ..." if len(names) > NUM_EXAMPLES else "")
