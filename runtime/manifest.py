"""The manifest: JSON lines that list items, their sources and where everything lies.

The first line is `{"format": "avgn-manifest", "version": 1, "classes": [...]}`, every other line is one item.
Boxes are x1, y1, x2, y2, normalised to the frame. Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avgn.runtime.documents import BadDocumentError, parse_json, shown
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.limits import MOST_CLASSES
from avgn.runtime.regular import no_file
from avgn.runtime.texts import is_name, is_text, read_lines

Box = tuple[float, float, float, float]
FORMAT = "avgn-manifest"
VERSION = 1
BOX_SLACK = 1e-6
# items of one manifest, which all lie in memory; the variable raises the limit
MOST_ITEMS = 250_000
ITEMS_VARIABLE = "AVGN_MANIFEST_ITEMS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One thing that sounds, is seen, or both.

    `part` is the place of its picture in an item of several (boxes are normalised to that picture); `annotators` holds
    the boxes of each of several people, whose union is `boxes`.
    """

    label: str
    sounding: bool
    on_screen: bool
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None
    intervals: tuple[tuple[float, float], ...] | None = None
    track: tuple[Box | None, ...] | None = None
    part: int | None = None
    annotators: tuple[tuple[Box, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One picture of several that stand side by side in an item, with its own sound."""

    frame: Path
    audio: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One scene: a frame with a sound, or a video file, and the truth about its sources.

    `mask_video` (optional) is an .npz whose array `index` [frames, h, w] uint8 holds 0 for the background and
    k + 1 where source k is seen. An item with `parts` is their pictures from left to right and the sum of their sounds;
    it has no frame and no audio of its own.
    """

    id: str
    sources: tuple[Source, ...]
    split: str
    dataset: str
    video: str
    frame: Path | None = None
    audio: Path | None = None
    video_file: Path | None = None
    mask_video: Path | None = None
    parts: tuple[Part, ...] = ()

    @property
    def frames(self) -> tuple[Path, ...]:
        """Its pictures from left to right."""
        return tuple(part.frame for part in self.parts) or (() if self.frame is None else (self.frame,))

    @property
    def sounds(self) -> tuple[Path, ...]:
        """The sounds whose sum is heard."""
        return tuple(part.audio for part in self.parts) or (() if self.audio is None else (self.audio,))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All items of a data set with the class list that their labels come from."""

    path: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...] = field(repr=False)


def read_manifest(path: str | os.PathLike[str], *, check_files: bool = True) -> Manifest:
    """Read and check a manifest.

    With `check_files`, every file that an item names must exist.
    Raises InputError that names the line for anything that can't be used.
    """
    path = Path(path)
    # plain newlines alone: names may hold what Unicode counts as the end of a line
    lines = read_lines(path, "manifest", "give the path of a manifest.jsonl")
    first = next(lines, "")
    if not first:
        raise InputError(f"manifest {path} is empty: its first line must name the format and the classes")
    classes = _read_header(path, first)
    items: list[Item] = []
    seen: dict[str, int] = {}
    most = _most_items()
    for number, line in enumerate(lines, start=2):
        if number > most + 1:
            raise InputError(
                f"manifest {path} has more than {most} lines: split it, or let {ITEMS_VARIABLE} name another limit"
            )
        if not line.strip():
            continue
        item = _read_item(path, number, line, classes)
        if item.id in seen:
            raise InputError(f"{path} line {number}: id {item.id!r} was used in line {seen[item.id]}: ids are unique")
        seen[item.id] = number
        if check_files:
            _check_files(path, number, item)
        items.append(item)
    return Manifest(path=path, classes=classes, items=tuple(items))


def write_manifest(path: str | os.PathLike[str], classes: Sequence[str], items: Iterable[Item]) -> None:
    """Write a manifest; paths inside are made relative to its folder. The file appears whole or not at all."""
    path = Path(path)
    base = path.parent.resolve()
    lines = [json.dumps({"format": FORMAT, "version": VERSION, "classes": list(classes)})]
    lines += [json.dumps(_item_to_dict(item, base)) for item in items]
    write_whole(path, "\n".join(lines) + "\n", "manifest")


def check_names(where: str, kind: str, names: Iterable[str]) -> None:
    """Raise InputError for a name that can't be shown: names reach terminals, tables and other programs' files."""
    for name in names:
        if not is_name(name):
            raise InputError(f"{where}: {kind} {shown(name)} holds control characters or is blank: rename it")


def _most_items() -> int:
    text = os.environ.get(ITEMS_VARIABLE, "")
    if text and not (text.isdecimal() and 0 < len(text) < 12):
        raise InputError(f"{ITEMS_VARIABLE} must be a whole number, got {text[:40]!r}: {MOST_ITEMS} is the default")
    return int(text or MOST_ITEMS)


def _read_header(path: Path, line: str) -> tuple[str, ...]:
    try:
        header = parse_json(line)
    except BadDocumentError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f'{path} line 1: not a manifest: the first line must hold "format": "{FORMAT}"')
    if header.get("version") != VERSION:
        raise InputError(
            f"{path} line 1: version {shown(header.get('version'))} is not known: this avgn reads {VERSION}"
        )
    classes = header.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(c, str) and c for c in classes):
        raise InputError(f"{path} line 1: classes must be a list of names, got {shown(classes)}")
    if len(classes) > MOST_CLASSES:
        raise InputError(f"{path} line 1: {len(classes)} classes are more than {MOST_CLASSES}: leave some out")
    if strange := next((name for name in classes if not is_text(name)), None):
        raise InputError(f"{path} line 1: class {strange!r} is not valid UTF-8: save the manifest as UTF-8")
    check_names(f"{path} line 1", "class", classes)
    if len(set(classes)) != len(classes):
        raise InputError(f"{path} line 1: a class is listed twice: class names are unique")
    return tuple(classes)


def _read_item(path: Path, number: int, line: str, classes: tuple[str, ...]) -> Item:
    where = f"{path} line {number}"
    try:
        raw = parse_json(line)
    except BadDocumentError as error:
        raise InputError(f"{where}: not valid JSON ({error}): mend or remove the line") from None
    if not isinstance(raw, dict):
        raise InputError(f"{where}: an item must be a JSON object, got {type(raw).__name__}")
    for key in ("id", "sources", "split"):
        if key not in raw:
            raise InputError(f"{where}: the item has no {key!r}: every item needs id, sources and split")
    if not isinstance(raw["sources"], list):
        raise InputError(f"{where}: sources must be a list, got {type(raw['sources']).__name__}")
    base = path.parent

    def file(key: str) -> Path | None:
        value = raw.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise InputError(f"{where}: {key} must be a path, got {shown(value)}")
        if "\0" in value:
            raise InputError(f"{where}: {key} {shown(value)} holds a NUL byte, as no path does: mend the line")
        return base / value

    parts = raw.get("parts", [])
    if not isinstance(parts, list) or not all(isinstance(p, dict) and {"frame", "audio"} <= p.keys() for p in parts):
        raise InputError(f"{where}: parts must be a list of objects with a frame and an audio, got {shown(parts)}")
    if parts and (len(parts) < 2 or raw.get("frame") is not None or raw.get("audio") is not None):
        raise InputError(f"{where}: an item has either parts (two or more) or a frame and an audio of its own")
    names = {
        key: _text(where, key, raw.get(key, default))
        for key, default in (("id", ""), ("split", ""), ("dataset", ""), ("video", raw["id"]))
    }
    return Item(
        id=names["id"],
        sources=tuple(_read_source(where, source, classes, base, len(parts)) for source in raw["sources"]),
        parts=tuple(Part(frame=_part(where, base, p["frame"]), audio=_part(where, base, p["audio"])) for p in parts),
        # the same few of all items
        split=sys.intern(names["split"]),
        dataset=sys.intern(names["dataset"]),
        video=names["video"],
        frame=file("frame"),
        audio=file("audio"),
        video_file=file("video_file"),
        mask_video=file("mask_video"),
    )


def _text(where: str, key: str, value: Any) -> str:
    """Return a name of an item; numbers are taken as they are written."""
    if type(value) not in (int, float, str):
        raise InputError(f"{where}: {key} must be a text, got {shown(value)}")
    text = str(value)
    if text:
        check_names(where, key, [text])
    return text


def _part(where: str, base: Path, value: Any) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise InputError(f"{where}: a part must name a frame and an audio, got {shown(value)}")
    return base / value


def _read_source(where: str, raw: Any, classes: tuple[str, ...], base: Path, num_parts: int) -> Source:
    if not isinstance(raw, dict) or "label" not in raw:
        raise InputError(f"{where}: a source must be an object with a label, got {shown(raw)}")
    label = raw["label"]
    if not isinstance(label, str) or label not in classes:
        raise InputError(f"{where}: class {shown(label)} is not in the manifest's class list: add it or mend the label")
    for key in ("sounding", "on_screen"):
        if not isinstance(raw.get(key), bool):
            raise InputError(f"{where}: {key!r} of {label!r} must be true or false, got {shown(raw.get(key))}")
    mask = raw.get("mask")
    intervals = raw.get("intervals")
    track = raw.get("track")
    part = raw.get("part")
    annotators = raw.get("annotators")
    if (part is not None) != bool(num_parts) or (num_parts and part not in range(num_parts)):
        raise InputError(f"{where}: part of {label!r} must be {_part_rule(num_parts)}, got {shown(part)}")
    try:
        return Source(
            label=sys.intern(label),
            sounding=raw["sounding"],
            on_screen=raw["on_screen"],
            boxes=tuple(_read_box(where, box) for box in raw.get("boxes", [])),
            mask=None if mask is None else base / mask,
            intervals=None if intervals is None else tuple((float(start), float(end)) for start, end in intervals),
            track=None if track is None else tuple(None if b is None else _read_box(where, b) for b in track),
            part=part,
            annotators=None if annotators is None else tuple(tuple(_read_box(where, b) for b in a) for a in annotators),
        )
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: source {label!r} is malformed ({error}): see the manifest format") from None


def _part_rule(num_parts: int) -> str:
    return f"a number from 0 to {num_parts - 1}" if num_parts else "left out where the item has no parts"


def _read_box(where: str, raw: Any) -> Box:
    if not isinstance(raw, (list, tuple)) or len(raw) != 4 or not all(isinstance(v, (int, float)) for v in raw):
        raise InputError(f"{where}: a box must be four numbers x1, y1, x2, y2, got {shown(raw)}")
    x1, y1, x2, y2 = (float(v) for v in raw)
    if not all(-BOX_SLACK <= v <= 1 + BOX_SLACK for v in (x1, y1, x2, y2)):
        raise InputError(f"{where}: box {raw!r} lies outside the image: coordinates are normalised to 0..1")
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"{where}: box {raw!r} has no area: boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    return (x1, y1, x2, y2)


def _check_files(path: Path, number: int, item: Item) -> None:
    files = [*item.frames, *item.sounds, item.video_file, item.mask_video, *(source.mask for source in item.sources)]
    for file in files:
        if file is not None and not file.is_file():
            raise InputError(f"{path} line {number}: file {file} of item {item.id!r} {no_file(file)}")


def _relative(file: Path | None, base: Path) -> str | None:
    return None if file is None else Path(os.path.relpath(file.resolve(), base)).as_posix()


def _item_to_dict(item: Item, base: Path) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "id": item.id,
        "frame": _relative(item.frame, base),
        "audio": _relative(item.audio, base),
        "sources": [_source_to_dict(source, base) for source in item.sources],
        "split": item.split,
        "dataset": item.dataset,
        "video": item.video,
    }
    if item.parts:
        raw["parts"] = [
            {"frame": _relative(part.frame, base), "audio": _relative(part.audio, base)} for part in item.parts
        ]
    if item.video_file is not None:
        raw["video_file"] = _relative(item.video_file, base)
    if item.mask_video is not None:
        raw["mask_video"] = _relative(item.mask_video, base)
    return raw


def _source_to_dict(source: Source, base: Path) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "label": source.label,
        "sounding": source.sounding,
        "on_screen": source.on_screen,
        "boxes": [list(box) for box in source.boxes],
        "mask": _relative(source.mask, base),
    }
    if source.intervals is not None:
        raw["intervals"] = [list(interval) for interval in source.intervals]
    if source.track is not None:
        raw["track"] = [None if box is None else list(box) for box in source.track]
    if source.part is not None:
        raw["part"] = source.part
    if source.annotators is not None:
        raw["annotators"] = [[list(box) for box in boxes] for boxes in source.annotators]
    return raw
