"""Reads text files as people have them: with or without a byte-order mark, from any system, with names in any bytes."""

from __future__ import annotations

import codecs
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.regular import open_regular, read_regular

# the longer marks first: that of UTF-32 begins with that of UTF-16
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
OTHER_MARKS = tuple(mark for mark, codec in MARKS if codec != "utf-8")
# what terminals take as commands: colours, titles, cursor movements
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])|\x9b[0-?]*[ -/]*[@-~]")
# Unicode's categories of what commands a terminal, breaks a line or turns the text around
UNSEEN = ("Cc", "Cf", "Zl", "Zp")
# user and password of an address. They end where what looks like a host begins before the first /. A password may hold
# anything, a / or a space too: without such a host, what stands behind a colon goes up to the last @. What begins like
# a port is `unclear`: user:12/34@host is a password with a slash, or a host with a port and a path with an @
PASSWORDS = re.compile(
    r"""
    (?P<scheme> \b[A-Za-z][A-Za-z0-9+.-]{1,20}:/{1,2} )
    # hosts that can be no user's name
    (?! (?: localhost | \d+(?:\.\d+){3} | \[[^\]\s]*\] ) (?: :\d* )? (?: [/?\#\s] | $ ) )
    (?:
        [^\s/?\#]* @
            (?= (?: localhost | [\w-]+(?:\.[\w-]+)+ | \[[^\]\s]*\] | [\w-]+ (?= :\d) ) (?: :\d+ )?
                (?: [/?\#\s'",;:] | $ ) )
        | [^\s/?\#:@]* : (?! \d* (?: [/?\#\s] | $ ) )
            (?: (?! \b[A-Za-z][A-Za-z0-9+.-]{1,20}:/ ) [^\n] )* @ (?= [\w\[.:/?-] | $ )
        | [^\s/?\#:@]* : (?! \d* (?: [/?\#\s] | $ ) ) \S{,1000} @
        | (?P<unclear> [^\s/?\#:@]* : \d* [/?\#] \S{,1000} @ ) (?= [\w\[.-] )
        | [^\s/?\#]* @ (?= [\w\[.-] )
    )
    """,
    re.VERBOSE,
)
# bytes of a text that is read at once, and letters of a line
LARGEST_TEXT = 64 << 20
LONGEST_LINE = 16 << 20
# joiners that scripts and emoji need
JOINERS = "\u200c\u200d"
# letters and marks that show nothing: joiners alone, fillers of Hangul, a Braille cell without dots; and spaces
BLANKS = JOINERS + "\u115f\u1160\u2800\u3164\uffa0 "


def plain(message: str) -> str:
    """Return a message as one line without terminal commands and passwords: libraries colour their errors, files may
    hold anything."""
    kept = (
        char if char.isprintable() or char in JOINERS or "\ud800" <= char <= "\udfff" else " "
        for char in ESCAPES.sub("", message)
    )
    return without_passwords(" ".join("".join(kept).split()))


def without_passwords(message: str) -> str:
    """Return a message whose addresses, also those that were taken for paths, have no user's name and password.

    What may be either a password or a host with a path is three dots.
    """
    return PASSWORDS.sub(lambda found: found["scheme"] + ("...@" if found["unclear"] else ""), message)


def printable(text: str) -> str:
    """Text of several lines for a terminal, without commands to it and passwords; columns stay where they are."""
    kept = (
        char if char == "\n" or char in JOINERS or unicodedata.category(char) not in UNSEEN else " "
        for char in ESCAPES.sub("", text)
    )
    return without_passwords("".join(kept))


class PlainFormatter(logging.Formatter):
    """Writes log messages without commands to the terminal: names in them come from strangers' files."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return plain(super().formatMessage(record))

    def formatException(self, info: Any) -> str:
        return without_passwords(super().formatException(info))


def read_text(
    path: str | os.PathLike[str], kind: str, way_out: str, *, file_names: bool = False, most: int = LARGEST_TEXT
) -> str:
    """Return the text of a plain file: UTF-8, or what its byte-order mark says; every line ends in a plain newline.

    With `file_names`, bytes that are no UTF-8 stay as Python keeps them in file names (surrogate escapes), since the
    names on a disk need not be UTF-8. Raises InputError that names the `kind`, the path and the `way_out`, also for a
    file of more than `most` bytes.
    """
    path = Path(path)
    try:
        data = read_regular(path, most)
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


def read_lines(path: str | os.PathLike[str], kind: str, way_out: str) -> Iterator[str]:
    """Yield the lines of a plain text file, one after the other, without their ends; as `read_text` reads it.

    Raises InputError that names the `kind`, the path and the `way_out`, also for a line longer than LONGEST_LINE.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            head = file.read(4)
            if head.startswith(OTHER_MARKS):
                yield from read_text(path, kind, way_out).split("\n")
                return
            file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise InputError(f"{kind} {path} line {number} has more than {LONGEST_LINE} bytes: {way_out}")
                try:
                    text = line.decode()
                except UnicodeDecodeError:
                    raise InputError(
                        f"{kind} {path} can't be read as UTF-8 (line {number}): save it as UTF-8"
                    ) from None
                yield from text.removesuffix("\n").removesuffix("\r").split("\r")
    except FileNotFoundError:
        raise InputError(f"{kind} {path} does not exist: {way_out}") from None
    except OSError as error:
        raise InputError(f"{kind} {path} can't be read ({error.strerror}): {way_out}") from None


def is_name(name: str) -> bool:
    """Return whether a name can be shown as it is: nothing in it commands a terminal, breaks a line or turns the text
    around.

    Bytes that are no UTF-8 are no such thing: `is_text` finds those.
    """
    if not name.strip().strip(BLANKS):
        return False
    # nearly all are
    if name.isprintable():
        return True
    return not any(char not in JOINERS and unicodedata.category(char) in UNSEEN for char in name)


def is_text(name: str) -> bool:
    """Return whether a name that came from a disk or a list is text: no bytes that are no UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in name)
