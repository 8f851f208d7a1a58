"""Defines what every importer is given and what it returns."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avgn.importers.boxes import Order, to_corners
from avgn.importers.files import Files
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box, Item

NO_FRAME = "without a frame on disk"
NO_AUDIO = "without audio on disk"
EMPTY = "zero-byte files"
DUPLICATE = "listed more than once"
DEGENERATE = "with a degenerate box"
UNSCORABLE = "with no usable box"
OVERLAP = "in the training list as well"
SAME_CLASS = "pairs with two sources of the same class"
LOOKALIKES = "classes that differ in case or separators alone"
CLIPPED = "boxes clipped to the picture"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Say what to import. `split` is "train" or "test"; `metadata` is the folder of the lists; `boxes` overrides the
    expected order; `classes` overrides the class list; `output` is the manifest to be, beside which new files may be
    written; `audio_track` is that of videos with several, as `open_media` takes it; with `check` every file is decoded.
    """

    root: Path
    metadata: Path
    output: Path
    split: str = "test"
    boxes: Order | None = None
    classes: tuple[str, ...] | None = None
    extended: bool = False
    fps: float = 1.0
    window: float = 3.0
    audio_track: str | None = None
    labels: Path | None = None
    jobs: int = 1
    check: bool = False
    show_progress: bool = False


@dataclass(kw_only=True)
class Import:
    """Holds the items of a data set, its class list and the report of what was found."""

    classes: tuple[str, ...]
    items: list[Item] = field(default_factory=list)
    report: Report = field(default_factory=Report)


class Finder:
    """Finds an item's files and notes what is missing."""

    def __init__(self, frames: Files, audio: Files, report: Report) -> None:
        self._frames, self._audio, self._report = frames, audio, report
        self._seen: set[str] = set()

    def is_new(self, id: str) -> bool:
        """Return whether an id is seen for the first time; note a repeated one in the report."""
        if id in self._seen:
            self._report.problem(DUPLICATE, id)
            return False
        self._seen.add(id)
        return True

    def find(self, frame: str, audio: str) -> tuple[Path, Path] | None:
        """Return the picture and the sound of these stems, or None where one of them is missing or empty."""
        frame_file, audio_file = self._frames.get(frame), self._audio.get(audio)
        if frame_file is None:
            self._report.problem(NO_FRAME, frame)
        if audio_file is None:
            self._report.problem(NO_AUDIO, audio)
        if frame_file is None or audio_file is None:
            return None
        return None if has_empty(frame_file, audio_file, report=self._report) else (frame_file, audio_file)


def has_empty(*paths: Path, report: Report) -> bool:
    """Return whether one of the files is empty, and note it in the report if so."""
    empty = [path.name for path in paths if path.stat().st_size == 0]
    for name in empty:
        report.problem(EMPTY, name)
    return bool(empty)


def usable_boxes(raw: Iterable[Any], order: Order, id: str, report: Report, where: str) -> tuple[Box, ...]:
    """Return the boxes of an id that have an area inside the picture; note those that don't and those that were
    clipped."""
    found: list[Box] = []
    for box in raw:
        corners, clipped = to_corners(box, order, f"{where}, {id}")
        report.counts[CLIPPED] += clipped
        if corners is None:
            report.problem(DEGENERATE, id, harmless=True)
        else:
            found.append(corners)
    if not found:
        report.problem(UNSCORABLE, id, harmless=True)
    return tuple(found)


def class_list(
    options: ImportOptions, trained: Iterable[str] | None, listed: Iterable[str], report: Report
) -> tuple[str, ...]:
    """Choose the class list: the one given, else the sorted labels of the training list, else those of the list itself
    (which is noted).

    Raises InputError when a listed label is not among the classes.
    """
    own = sorted(set(listed))
    if options.classes is not None:
        classes = options.classes
        source = "--classes"
    elif trained is not None:
        classes = tuple(sorted(set(trained)))
        source = "the training list"
    else:
        classes = tuple(own)
        source = "the list itself"
        report.notes.append("no training list was found: the classes are those of the list itself")
    if unknown := [label for label in own if label not in set(classes)]:
        spelled = {_folded(name): name for name in classes}
        nearly = [f"{name} is written {spelled[_folded(name)]} there" for name in unknown if _folded(name) in spelled]
        raise InputError(
            f"{len(unknown)} labels are not among the {len(classes)} classes of {source} ({', '.join(unknown[:5])}): "
            + (nearly[0] if nearly else "the lists belong to different data sets, or --classes names others")
        )
    note_lookalikes(classes, report)
    report.counts["classes"] = len(classes)
    return classes


def note_lookalikes(classes: Iterable[str], report: Report) -> None:
    """Note classes whose names differ only in case, separators or the coding of accents: probably a mistake."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(_folded(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            report.problem(LOOKALIKES, " / ".join(names))


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in text if not char.isspace() and char not in "_-,") or text


def note_overlap(tested: Iterable[str], trained: Iterable[str], report: Report) -> None:
    """Note ids that stand in both lists."""
    known = set(trained)
    for id in dict.fromkeys(tested):
        if id in known:
            report.problem(OVERLAP, id)
