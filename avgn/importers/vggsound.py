"""Imports VGGSound: training lists, VGG-SS boxes, and pairs of its test items side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from avgn.importers.base import (
    DUPLICATE,
    SAME_CLASS,
    Finder,
    Import,
    ImportOptions,
    class_list,
    note_overlap,
    usable_boxes,
)
from avgn.importers.boxes import check_order
from avgn.importers.clips import files_of
from avgn.importers.files import canonical, first_of, read_entries, read_rows
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box, Item, Part, Source

ID_TAIL_LENGTH = 7
TRAIN_LISTS = ("vggsound_train.txt", "vggsound_train.csv", "vggsound_single_train.csv", "vggsound_duet_train.txt")
TEST_LISTS = ("vggsound_single_test.csv", "vggsound_test.csv")
# the list as its authors publish it: YouTube id, start second, label, split
ORIGINAL = "vggsound.csv"
SILENT = "non-sounding"

Boxes = dict[str, tuple[str, tuple[Box, ...]]]


def import_vggsound(options: ImportOptions) -> Import:
    """Import single items: labels of the lists, and for tests the boxes of VGG-SS where there are any."""
    report = Report()
    train, test = _lists(options)
    rows = train if options.split == "train" else test
    if rows is None:
        names = TRAIN_LISTS if options.split == "train" else TEST_LISTS
        rows = _labelled(first_of(options.metadata, (*names, ORIGINAL)))
    classes = class_list(options, None if train is None else [r[1] for r in train], [r[1] for r in rows], report)
    boxes: Boxes = {}
    if options.split == "test":
        boxes = read_vggss(options, report) if (options.metadata / "vggss.json").is_file() else {}
        note_overlap([row[0] for row in rows], [row[0] for row in train or ()], report)
    return Import(classes=classes, items=_singles(options, rows, boxes, "vggsound", report), report=report)


def import_vggss(options: ImportOptions) -> Import:
    """Import VGG-SS: the items of vggss.json; `extended` adds its silent negatives."""
    report = Report()
    if options.split != "test":
        raise InputError("vggss has test annotations only: train on vggsound")
    train, _ = _lists(options)
    boxes = read_vggss(options, report)
    listed = options.metadata / "vggss_test.csv"
    ids = [row[0] for row in read_rows(listed, (1, 2))] if listed.is_file() else list(boxes)
    for id in ids:
        if id not in boxes:
            report.problem("listed without an annotation", id)
    rows = [[id, boxes[id][0]] for id in ids if id in boxes]
    note_overlap(ids, [row[0] for row in train or ()], report)
    classes = class_list(options, None if train is None else [r[1] for r in train], [r[1] for r in rows], report)
    items = _singles(options, rows, boxes, "vggss", report)
    if options.extended:
        labels = {id: label for id, (label, _) in boxes.items()}
        items += silent_pairs(options, "vggss_test_plus_silent.csv", labels, video_of, report)
    return Import(classes=classes, items=items, report=report)


def import_duet(options: ImportOptions) -> Import:
    """Import VGGSound-Duet from rows of (id, class, mix_id, mix_class); both pictures side by side, both sounds
    summed."""
    report = Report()
    train, _ = _lists(options)
    path = options.metadata / f"vggsound_duet_{options.split}.csv"
    rows = [[a, canonical(b), c, canonical(d)] for a, b, c, d in read_rows(path, (4,))]
    labels = [label for row in rows for label in (row[1], row[3])]
    classes = class_list(options, None if train is None else [r[1] for r in train], labels, report)
    boxes = read_vggss(options, report) if options.split == "test" else {}
    note_overlap([id for row in rows for id in row[::2]], [row[0] for row in train or ()], report)
    finder = Finder(*files_of(options, [id for row in rows for id in row[::2]], report), report)
    items = []
    for first, label, second, other in rows:
        id = f"{first}+{second}"
        if not finder.is_new(id):
            continue
        files = [finder.find(each, each) for each in (first, second)]
        if files[0] is None or files[1] is None:
            continue
        report.counts[SAME_CLASS] += label == other
        sources = []
        for part, (each, name) in enumerate(((first, label), (second, other))):
            if each in boxes and boxes[each][0] != name:
                report.problem("with another class than in vggss.json", each)
            if boxes and each not in boxes:
                report.problem("listed without an annotation", each)
            drawn = boxes[each][1] if each in boxes else ()
            sources.append(Source(label=name, sounding=True, on_screen=True, boxes=drawn, part=part))
        items.append(
            Item(
                id=id,
                sources=tuple(sources),
                split=options.split,
                dataset="vggsound-duet",
                video=video_of(first),
                parts=tuple(Part(frame=frame, audio=audio) for frame, audio in (files[0], files[1])),
            )
        )
    return Import(classes=classes, items=items, report=report)


def read_vggss(options: ImportOptions, report: Report) -> Boxes:
    """Read {id: (label, boxes)} of vggss.json: (x1, y1, x2, y2), clipped; boxes without area are noted and left out."""
    path = options.metadata / "vggss.json"
    entries = read_entries(path, ("file", "class", "bbox"))
    order = options.boxes or "xyxy"
    for entry in entries:
        if not isinstance(entry["bbox"], list):
            raise InputError(f"annotation {path}: {entry['file']} has no list of boxes: give the data set's own file")
    check_order([box for entry in entries for box in entry["bbox"]], order, path.name)
    found: Boxes = {}
    for entry in entries:
        id = str(entry["file"])
        if id in found:
            report.problem(DUPLICATE, id)
            continue
        found[id] = (canonical(str(entry["class"])), usable_boxes(entry["bbox"], order, id, report, path.name))
    return found


def video_of(id: str) -> str:
    """Cut an id down to its YouTube id, without the start second."""
    return id[:-ID_TAIL_LENGTH]


def silent_pairs(
    options: ImportOptions, name: str, labels: Mapping[str, str], video_of: Callable[[str], str], report: Report
) -> list[Item]:
    """Make the negatives of an extended set: a picture with another's sound, or with its own if that is silent.

    `labels` are those known by id: what the picture shows is silent, and what the other sound belongs to is off-screen.
    """
    rows = read_rows(options.metadata / name, (3,))
    finder = Finder(*files_of(options, [id for row in rows for id in row[:2]], report), report)
    items = []
    for video, audio, label in rows:
        if label != SILENT:
            raise InputError(f"{name}: label {label!r} of {video} is not known: the silent lists say {SILENT}")
        id = f"{video}+{audio}"
        if not finder.is_new(id) or (files := finder.find(video, audio)) is None:
            continue
        sources = []
        if video in labels:
            sources.append(Source(label=labels[video], sounding=False, on_screen=True))
        if audio in labels and audio != video:
            sources.append(Source(label=labels[audio], sounding=True, on_screen=False))
        items.append(
            Item(
                id=id,
                sources=tuple(sources),
                split=options.split,
                dataset=name.removesuffix(".csv").replace("_", "-"),
                video=video_of(video),
                frame=files[0],
                audio=files[1],
            )
        )
    report.counts["silent negatives"] = len(items)
    return items


def _singles(
    options: ImportOptions, rows: Sequence[Sequence[str]], boxes: Boxes, dataset: str, report: Report
) -> list[Item]:
    finder = Finder(*files_of(options, [row[0] for row in rows], report), report)
    items = []
    for id, label in rows:
        if not finder.is_new(id) or (files := finder.find(id, id)) is None:
            continue
        drawn = boxes[id][1] if id in boxes else ()
        items.append(
            Item(
                id=id,
                sources=(Source(label=label, sounding=True, on_screen=True, boxes=drawn),),
                split=options.split,
                dataset=dataset,
                video=video_of(id),
                frame=files[0],
                audio=files[1],
            )
        )
    return items


def _lists(options: ImportOptions) -> tuple[list[list[str]] | None, list[list[str]] | None]:
    """Read (train, test) rows of [id, label]; None for a list that doesn't exist."""
    original = options.metadata / ORIGINAL
    if original.is_file():
        rows = read_rows(original, (4,))
        if strange := next((row for row in rows if not row[1].isdecimal() or row[3] not in ("train", "test")), None):
            raise InputError(f"{original}: {','.join(strange)} is not YouTube id, start second, label, train or test")
        both = {
            split: [[f"{r[0]}_{int(r[1]):06d}", canonical(r[2])] for r in rows if r[3] == split]
            for split in ("train", "test")
        }
        return both["train"], both["test"]
    found: list[list[list[str]] | None] = []
    for names in (TRAIN_LISTS, TEST_LISTS):
        path = next((options.metadata / name for name in names if (options.metadata / name).is_file()), None)
        found.append(None if path is None else _labelled(path))
    return found[0], found[1]


def _labelled(path: Path) -> list[list[str]]:
    return [[id, canonical(label)] for id, label in read_rows(path, (2,))]
