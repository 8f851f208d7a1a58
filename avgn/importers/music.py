"""Imports MUSIC: solos and duets in the release layout; boxes are (x, y, w, h)."""

from __future__ import annotations

from pathlib import Path

from avgn.importers.base import Finder, Import, ImportOptions, class_list, note_overlap, usable_boxes
from avgn.importers.boxes import check_order
from avgn.importers.files import audio_files, canonical, frame_files, read_entries, read_rows
from avgn.importers.report import Report
from avgn.runtime.manifest import Item, Source

# characters after a video's name: "_", the segment's and the frame's number
ID_TAIL_LENGTH = 10


def video_of(id: str) -> str:
    """Cut a frame's id down to the name of its video, which is also that of its wav file."""
    return id[:-ID_TAIL_LENGTH]


def import_solo(options: ImportOptions) -> Import:
    """Import MUSIC-Solo: one source an item."""
    return _import(options, "solo")


def import_duet(options: ImportOptions) -> Import:
    """Import MUSIC-Duet: two sources in one real picture."""
    return _import(options, "duet")


def _import(options: ImportOptions, kind: str) -> Import:
    report = Report()
    trained_path = options.metadata / f"music_{kind}_train.txt"
    trained = read_rows(trained_path, (1, 2, 3, 4, 5)) if trained_path.is_file() else None
    train_ids = [row[0] for row in trained or ()]
    train_labels = None if trained is None else [canonical(label) for row in trained for label in row[1:]]
    entries: list[tuple[str, list[Source]]]
    if options.split == "train":
        rows = trained if trained is not None else read_rows(trained_path, (2, 3))
        entries = [(row[0], [_labelled(canonical(label)) for label in row[1:]]) for row in rows]
    else:
        entries = _annotated(options, kind, report)
        note_overlap([id for id, _ in entries], train_ids, report)
        videos = {video_of(id) for id, _ in entries} & {video_of(id) for id in train_ids}
        if videos:
            report.notes.append(f"videos in the training list as well: {len(videos)} ({', '.join(sorted(videos)[:5])})")
    classes = class_list(options, train_labels, [s.label for _, sources in entries for s in sources], report)
    finder = Finder(frame_files(options.root), audio_files(options.root), report)
    items = []
    for id, sources in entries:
        if finder.is_new(id) and (files := finder.find(id, video_of(id))) is not None:
            items.append(
                Item(
                    id=id,
                    sources=tuple(sources),
                    split=options.split,
                    dataset=f"music-{kind}",
                    video=video_of(id),
                    frame=files[0],
                    audio=files[1],
                )
            )
    return Import(classes=classes, items=items, report=report)


def _annotated(options: ImportOptions, kind: str, report: Report) -> list[tuple[str, list[Source]]]:
    path = options.metadata / f"music_{kind}.json"
    suffixes = ("",) if kind == "solo" else ("_src1", "_src2")
    entries = read_entries(path, ["file", *(f"{name}{suffix}" for suffix in suffixes for name in ("class", "bbox"))])
    order = options.boxes or "xywh"
    check_order([entry[f"bbox{suffix}"] for entry in entries for suffix in suffixes], order, path.name)
    found = []
    for entry in entries:
        sources = [
            Source(
                label=canonical(str(entry[f"class{suffix}"])),
                sounding=True,
                on_screen=True,
                boxes=usable_boxes([entry[f"bbox{suffix}"]], order, entry["file"], report, path.name),
            )
            for suffix in suffixes
        ]
        found.append((str(entry["file"]), sources))
    _note_unlisted(options.metadata / f"music_{kind}_test.csv", [id for id, _ in found], report)
    return found


def _note_unlisted(path: Path, annotated: list[str], report: Report) -> None:
    if not path.is_file():
        return
    listed = {row[0] for row in read_rows(path, (1, 2, 3))}
    for id in sorted(listed - set(annotated)):
        report.problem(f"in {path.name} without an annotation", id)
    for id in annotated:
        if id not in listed:
            report.problem(f"annotated but not in {path.name}", id)


def _labelled(label: str) -> Source:
    return Source(label=label, sounding=True, on_screen=True)
