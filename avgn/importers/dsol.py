"""Imports the boxes of DSOL on MUSIC frames: `normbox` is (x, y, w, h), classes are numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avgn.importers.base import (
    DUPLICATE,
    NO_AUDIO,
    NO_FRAME,
    Import,
    ImportOptions,
    class_list,
    has_empty,
    usable_boxes,
)
from avgn.importers.boxes import check_order
from avgn.importers.files import check_entry, read_json
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Source

CATEGORIES = {
    1: "cello",
    3: "acoustic_guitar",
    8: "saxophone",
    10: "trumpet",
    11: "violin",
    12: "flute",
    13: "accordion",
}


def import_solo(options: ImportOptions) -> Import:
    """Import solotest.json: one source an item."""
    return _import(options, "solo")


def import_duet(options: ImportOptions) -> Import:
    """Import duettest.json: two sources an item."""
    return _import(options, "duet")


def _import(options: ImportOptions, kind: str) -> Import:
    """Pair frames and sounds: a frame `<root>/<key>` or `<root>/frames/<key>` has the sound `<root>/audio/<key as
    .wav>`, that of its folder (`audio/<video>/<frame>.wav`) or of its video (`audio/<video>.wav`).
    """
    if options.split != "test":
        raise InputError("dsol has test annotations only: train on music-solo or music-duet")
    report = Report()
    folder = options.metadata / "dsol"
    path = (folder if folder.is_dir() else options.metadata) / f"{kind}test.json"
    entries = _read(path)
    order = options.boxes or "xywh"
    check_order([box["normbox"] for entry in entries.values() for box in entry["bbox"]], order, path.name)
    items = []
    seen: set[str] = set()
    found: dict[str, list[Source]] = {}
    for key, entry in entries.items():
        by_label: dict[str, list[Any]] = {}
        for box in entry["bbox"]:
            by_label.setdefault(CATEGORIES[box["category_id"]], []).append(box["normbox"])
        found[key] = [
            Source(label=label, sounding=True, on_screen=True, boxes=usable_boxes(raw, order, key, report, path.name))
            for label, raw in by_label.items()
        ]
    labels = [source.label for sources in found.values() for source in sources]
    classes = class_list(options, sorted(CATEGORIES.values()), labels, report)
    for key, sources in found.items():
        id = Path(key).with_suffix("").as_posix().replace("/", "_")
        if id in seen:
            report.problem(DUPLICATE, id)
            continue
        seen.add(id)
        frame = _first(options.root / key, options.root / "frames" / key)
        video = Path(key).parts[0]
        audio = options.root / "audio"
        wav = _first(
            (audio / key).with_suffix(".wav"),
            (audio / Path(key).parent).with_suffix(".wav"),
            audio / f"{video}.wav",
        )
        if frame is None:
            report.problem(NO_FRAME, key)
        if wav is None:
            report.problem(NO_AUDIO, key)
        if frame is None or wav is None or has_empty(frame, wav, report=report):
            continue
        report.counts["frames without a box"] += not sources
        items.append(
            Item(
                id=id,
                sources=tuple(sources),
                split="test",
                dataset=f"dsol-{kind}",
                video=video,
                frame=frame,
                audio=wav,
            )
        )
    return Import(classes=classes, items=items, report=report)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Read {frame: entry}, checking that every entry has what is used."""
    entries: Any = read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"annotation {path} must be a JSON object of frames: give the data set's own file")
    for key, entry in entries.items():
        check_entry(path, key, entry, ["bbox"])
        if not key or not isinstance(entry["bbox"], list):
            raise InputError(f"annotation {path}: {key!r} has no list of boxes: give the data set's own file")
        for box in entry["bbox"]:
            check_entry(path, f"a box of {key}", box, ["normbox", "category_id"])
            if box["category_id"] not in list(CATEGORIES):
                known = ", ".join(f"{number} {label}" for number, label in CATEGORIES.items())
                raise InputError(f"annotation {path}: category {box['category_id']} of {key} is not known: {known}")
    return entries


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
