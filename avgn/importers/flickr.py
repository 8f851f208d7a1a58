"""Imports Flickr-SoundNet: XML with the boxes of several annotators in a picture of 256 pixels."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from avgn.importers.base import CLIPPED, DEGENERATE, UNSCORABLE, Finder, Import, ImportOptions
from avgn.importers.boxes import to_corners
from avgn.importers.clips import files_of
from avgn.importers.files import Files, read_rows
from avgn.importers.report import Report
from avgn.importers.vggsound import silent_pairs
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box, Item, Source
from avgn.runtime.regular import read_regular

# the set has no classes
LABEL = "sound"
FRAME_PIXELS = 256
XML_FOLDERS = ("Annotations", "annotations", "xml")
MOST_ANNOTATION_BYTES = 1_000_000


def import_flickr(options: ImportOptions) -> Import:
    """Import one source an item, whose truth is what two annotators agree on; `extended` adds the silent negatives."""
    report = Report()
    if options.split != "test":
        raise InputError("flickr has test annotations only: its training list is one of videos without labels")
    rows = read_rows(options.metadata / "flickr_test.csv", (1, 2))
    frames, audio = files_of(options, [row[0] for row in rows], report)
    drawn = Files([options.root / name for name in XML_FOLDERS], (".xml",), f"{XML_FOLDERS[0]}/<id>.xml")
    finder = Finder(frames, audio, report)
    items = []
    for id in (row[0] for row in rows):
        if not finder.is_new(id) or (files := finder.find(id, id)) is None:
            continue
        path = drawn.get(id)
        annotators: tuple[tuple[Box, ...], ...] = ()
        if path is None:
            report.problem("without annotations on disk", id)
        else:
            annotators = read_annotators(path, report)
            if not any(annotators):
                report.problem(UNSCORABLE, id, harmless=True)
        boxes = tuple(box for boxes in annotators for box in boxes)
        source = Source(label=LABEL, sounding=True, on_screen=True, boxes=boxes, annotators=annotators or None)
        items.append(
            Item(id=id, sources=(source,), split="test", dataset="flickr", video=id, frame=files[0], audio=files[1])
        )
    if options.extended:
        labels = {row[0]: LABEL for row in rows}
        items += silent_pairs(options, "flickr_test_plus_silent.csv", labels, str, report)
    report.counts["classes"] = 1
    return Import(classes=(LABEL,), items=items, report=report)


class _NoEntities(ElementTree.TreeBuilder):
    """Refuses a document type declaration: its entities can make a small file enormous, and annotations have none."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which may hold entities")


def read_annotators(path: Path, report: Report) -> tuple[tuple[Box, ...], ...]:
    """Read each annotator's boxes, normalised. Raises InputError for a file that isn't such XML."""
    try:
        data = read_regular(path, MOST_ANNOTATION_BYTES)
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoEntities()))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"annotation {path} can't be read ({error}): give the data set's own file") from None
    found = []
    for person in root:
        boxes = []
        for element in person.iter("bbox"):
            corners, clipped = to_corners(
                [value / FRAME_PIXELS for value in _numbers(element, path)], "xyxy", str(path)
            )
            report.counts[CLIPPED] += clipped
            if corners is None:
                report.problem(DEGENERATE, path.stem, harmless=True)
            else:
                boxes.append(corners)
        if boxes:
            found.append(tuple(boxes))
    return tuple(found)


def _numbers(element: ElementTree.Element, path: Path) -> list[float]:
    named = {child.tag: (child.text or "").strip() for child in element}
    order = [named[name] for name in ("xmin", "ymin", "xmax", "ymax") if name in named]
    texts = order if len(order) == 4 else [(child.text or "").strip() for child in element][-4:]
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise InputError(f"annotation {path} has a bbox without four numbers: give the data set's own file")
    return numbers
