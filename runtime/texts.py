"""Reads text files as people have them: with or without a byte-order mark, from any system, with names in any bytes."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from avgn.runtime.errors import InputError

# the longer marks first: that of UTF-32 begins with that of UTF-16
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# what terminals take as commands: colours, titles, cursor movements
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])|\x9b[0-?]*[ -/]*[@-~]")
# joiners that scripts and emoji need
JOINERS = "\u200c\u200d"


def plain(message: str) -> str:
    """A message as one line without terminal commands: libraries colour their errors, files may hold anything."""
    kept = (
        char if char.isprintable() or char in JOINERS or "\ud800" <= char <= "\udfff" else " "
        for char in ESCAPES.sub("", message)
    )
    return " ".join("".join(kept).split())


def read_text(path: str | os.PathLike[str], kind: str, way_out: str, *, file_names: bool = False) -> str:
    """The text of a file: UTF-8, or what its byte-order mark says; every line ends in a plain newline.

    With `file_names`, bytes that are no UTF-8 stay as Python keeps them in file names (surrogate escapes), since the
    names on a disk need not be UTF-8. Raises InputError that names the `kind`, the path and the `way_out`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{kind} {path} does not exist: {way_out}") from None
    except OSError as error:
        raise InputError(f"{kind} {path} can't be read ({error.strerror}): {way_out}") from None
    mark, codec = next(((mark, codec) for mark, codec in MARKS if data.startswith(mark)), (b"", "utf-8"))
    errors = "surrogateescape" if file_names and codec == "utf-8" else "strict"
    try:
        text = data[len(mark) :].decode(codec, errors)
    except UnicodeDecodeError as error:
        line = data[: len(mark) + error.start].count(b"\n") + 1
        raise InputError(f"{kind} {path} can't be read as {codec.upper()} (line {line}): save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_text(name: str) -> bool:
    """Whether a name that came from a disk or a list is text: no bytes that are no UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in name)
