"""Lists, labels and files of the public layouts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avgn.runtime.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png")
SOUNDS = (".wav",)
LAYOUT = "frames/<id>.jpg and audio/<id>.wav"


def canonical(label: str) -> str:
    """A class name as the training lists write it: "female speech, woman speaking" has commas and spaces."""
    return label.strip().replace(", ", "_").replace(" ", "_")


def read_rows(path: Path, columns: Sequence[int]) -> list[list[str]]:
    """The rows of a csv or txt list, stripped; a byte-order mark and quotes are understood.

    `columns`: the allowed numbers of columns. Raises InputError that names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), start=1)]
    except FileNotFoundError:
        raise InputError(f"list {path} does not exist: give the folder of the lists with --metadata") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"list {path} can't be read ({error}): give a UTF-8 csv file") from None
    found = [(number, row) for number, row in rows if any(row)]
    for number, row in found:
        if len(row) not in columns:
            wanted = " or ".join(str(count) for count in columns)
            raise InputError(f"{path} line {number} has {len(row)} columns, expected {wanted}: quote names with commas")
    if not found:
        raise InputError(f"list {path} is empty: give the data set's own list")
    return [row for _, row in found]


def read_json(path: Path) -> Any:
    """A JSON file; raises InputError when it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"annotation {path} does not exist: give the folder of the lists with --metadata") from None
    except (OSError, ValueError) as error:
        raise InputError(f"annotation {path} can't be read ({error}): give the data set's own file") from None


def read_entries(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """A JSON list of objects that have the `needed` keys; raises InputError that names the entry."""
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
    """The first of several files that exists. Raises InputError that lists them."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has no {' and no '.join(names)}: give the folder of the lists with --metadata")


class Files:
    """The files of a folder by stem; the folder is listed once, however many are asked for."""

    def __init__(self, folders: Iterable[Path], suffixes: Sequence[str], layout: str) -> None:
        """The first of `folders` that exists is used; raises InputError with the `layout` where none does."""
        tried = list(folders)
        self.folder = next((folder for folder in tried if folder.is_dir()), tried[0])
        if not self.folder.is_dir():
            raise InputError(f"folder {tried[0]} does not exist: the layout is {layout}")
        rank = {suffix: at for at, suffix in enumerate(suffixes)}
        self._found: dict[str, Path] = {}
        for path in sorted(self.folder.iterdir(), key=lambda path: rank.get(path.suffix.lower(), len(rank))):
            if path.suffix.lower() in rank:
                self._found.setdefault(path.stem, path)

    def get(self, stem: str) -> Path | None:
        """The file of a stem, with the first suffix that there is."""
        return self._found.get(stem)

    def __len__(self) -> int:
        return len(self._found)


def pictures(root: Path) -> Files:
    """The frames of the release layout."""
    return Files([root / "frames"], PICTURES, LAYOUT)


def sounds(root: Path) -> Files:
    """The sounds of the release layout."""
    return Files([root / "audio"], SOUNDS, LAYOUT)
