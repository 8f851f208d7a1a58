"""Reads the lists, labels and files of public data sets' layouts."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avgn.runtime.documents import BadDocumentError, parse_json
from avgn.runtime.errors import InputError
from avgn.runtime.folders import is_clutter
from avgn.runtime.texts import read_text

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
AUDIO_SUFFIXES = (".wav",)
LAYOUT = "frames/<id>.jpg and audio/<id>.wav"
# words of header rows, reduced to their letters
_IDS = (
    "id file files filename path filepath name clip clipname video videos videoid videoname videopath videofile ytid "
    "youtubeid youtube key item sample frame image"
)
_OTHERS = (
    "class classes classname label labels labelname category categories instrument instruments tag tags target "
    "start startsecond startseconds starttime end endsecond endseconds endtime split set subset fold part "
    "audio sound wav mixid mixclass mixlabel mixcategory"
)
ID_WORDS = frozenset(_IDS.split())
OTHER_WORDS = frozenset(_OTHERS.split())
# bytes and lines of a list, bytes of a JSON file: several times the largest published ones
MOST_LIST_BYTES = 32 << 20
MOST_LIST_LINES = 500_000
MOST_JSON_BYTES = 16 << 20
# a character is the delimiter if at least this share of the lines has it
DELIMITED_SHARE = 0.9
# what Excel reads of a list's delimiter
_SEP = re.compile(r"(sep=([,;\t|]))\r?\n", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')


def canonical(label: str) -> str:
    """Rewrite a class name as the training lists write it: "female speech, woman speaking" has commas and spaces."""
    return unicodedata.normalize("NFC", label.strip()).replace(", ", "_").replace(" ", "_")


def read_rows(path: Path, columns: Sequence[int]) -> list[list[str]]:
    """Read the rows of a csv or txt list, stripped, without its header; commas, semicolons or tabs separate the cells.

    A byte-order mark and quotes are understood, lines that begin with "# " are passed over; if a header names the
    columns, the one of ids or files is put first.
    `columns`: the allowed numbers of columns. Raises InputError that names the line.
    """
    text = read_text(
        path, "list", "give the folder of the lists with --metadata", file_names=True, most=MOST_LIST_BYTES
    )
    if text.count("\n") > MOST_LIST_LINES:
        raise InputError(f"list {path} has more than {MOST_LIST_LINES} lines: split it")
    told = _SEP.match(text)
    try:
        # the line stays as an empty one, for the numbers in messages
        body = text[told.end(1) :] if told else text
        parted = csv.reader(io.StringIO(body, newline=""), delimiter=told[2] if told else _delimiter(text))
        # a quoted cell may span lines: `line_num` is where the row ends
        rows = [(parted.line_num, [cell.strip() for cell in row]) for row in parted]
    except csv.Error as error:
        raise InputError(f"list {path} can't be read ({error}): give a UTF-8 csv file") from None
    found = [(number, row) for number, row in rows if any(row) and not _is_comment(row)]
    if found and _is_header(found[0][1]):
        found = _without_header(found)
    for number, row in found:
        if len(row) not in columns:
            wanted = " or ".join(map(str, columns)) if len(columns) < 3 else f"{columns[0]} to {columns[-1]}"
            raise InputError(f"{path} line {number} has {len(row)} columns, expected {wanted}: quote names with commas")
    if not found:
        raise InputError(f"list {path} is empty: give the data set's own list")
    return [row for _, row in found]


def _is_comment(row: Sequence[str]) -> bool:
    """Tell a comment, as AudioSet's lists begin with, from a file whose name begins with the mark."""
    return row[0].startswith("# ") or (len(row) == 1 and row[0].startswith("#"))


def _delimiter(text: str) -> str:
    """Find the delimiter: a tab, semicolon or bar that nearly every line has outside quotes, else the comma."""
    bare = [line for line in _QUOTED.sub("_", text).split("\n") if line.strip() and line[0] != "#"]
    for mark in "\t;|":
        if bare and sum(mark in line for line in bare) >= DELIMITED_SHARE * len(bare):
            return mark
    return ","


def _is_header(row: Sequence[str]) -> bool:
    words = [_header_word(cell) for cell in row]
    return len(row) > 1 and all(word in ID_WORDS | OTHER_WORDS for word in words if word) and bool(words[0])


def _without_header(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    words = [_header_word(cell) for cell in rows[0][1]]
    at = next((at for at, word in enumerate(words) if word in ID_WORDS), 0)
    return [(number, row[at : at + 1] + row[:at] + row[at + 1 :]) for number, row in rows[1:]]


def _header_word(cell: str) -> str:
    return re.sub(r"[^a-z]+", "", cell.casefold())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError if that fails."""
    text = read_text(path, "annotation", "give the folder of the lists with --metadata", most=MOST_JSON_BYTES)
    try:
        # published files may give a name twice
        return parse_json(text, unique=False)
    except BadDocumentError as error:
        raise InputError(f"annotation {path} can't be read ({error}): give the data set's own file") from None


def read_entries(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Read a JSON list of objects that have the `needed` keys. Raises InputError that names a wrong entry."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"annotation {path} must be a JSON list of entries: give the data set's own file")
    for number, entry in enumerate(entries):
        check_entry(path, f"entry {number}", entry, needed)
    return entries


def check_entry(path: Path, name: str, entry: Any, needed: Sequence[str]) -> None:
    """Raise InputError when an entry is no object with the `needed` keys."""
    if not isinstance(entry, dict) or (missing := [key for key in needed if key not in entry]):
        what = f"has no {missing[0]!r}" if isinstance(entry, dict) else f"is {type(entry).__name__}, no object"
        raise InputError(f"annotation {path}: {name} {what}: give the data set's own file")


def first_of(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of several files that exists. Raises InputError that lists them if none does."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has no {' and no '.join(names)}: give the folder of the lists with --metadata")


class Files:
    """Finds the files of a folder by stem; the folder is listed once, however many are asked for."""

    def __init__(self, folders: Iterable[Path], suffixes: Sequence[str], layout: str) -> None:
        """Use the first of `folders` that exists. Raises InputError that shows the `layout` if none does."""
        tried = list(folders)
        self.folder = next((folder for folder in tried if folder.is_dir()), tried[0])
        if not self.folder.is_dir():
            what = "is a file" if tried[0].exists() else "does not exist"
            raise InputError(f"folder {tried[0]} {what}: the layout is {layout}")
        rank = {suffix: at for at, suffix in enumerate(suffixes)}
        self._found: dict[str, Path] = {}
        # between a.jpg and a.JPG the name decides, not the order in which the disk lists them
        for path in sorted(self.folder.iterdir(), key=lambda path: (rank.get(path.suffix.lower(), len(rank)), path)):
            if path.suffix.lower() in rank and not is_clutter(path.name):
                self._found.setdefault(path.stem, path)

    def get(self, stem: str) -> Path | None:
        """Return the file of a stem, with the first of the suffixes that exists."""
        return self._found.get(stem)

    def __len__(self) -> int:
        return len(self._found)


def frame_files(root: Path) -> Files:
    """Find the frames of the release layout."""
    return Files([root / "frames"], FRAME_SUFFIXES, LAYOUT)


def audio_files(root: Path) -> Files:
    """Find the sounds of the release layout."""
    return Files([root / "audio"], AUDIO_SUFFIXES, LAYOUT)
