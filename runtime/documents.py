"""Reads JSON and YAML that strangers may have written, within limits that no document decides about.

A few bytes can ask for much: brackets nested a million deep, numbers of a million digits, names given twice, anchors
that multiply. All of it is refused before it costs anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from avgn.runtime.errors import InputError
from avgn.runtime.texts import read_text

# bytes of one document; our own have some KB, with thousands of classes half a MB
LARGEST = 4 << 20
LARGEST_YAML = 1 << 20
# brackets inside brackets
DEEPEST = 64
# digits of a whole number: 64 bits have 20
LONGEST_NUMBER = 20
# values of a YAML document once its aliases are written out, and letters of one of them
MOST_NODES = 10_000
LONGEST_SCALAR = 4096


class BadDocumentError(ValueError):
    """Why a document can't be used, as half a sentence."""


def parse_json(text: str | bytes, *, constants: bool = True, unique: bool = True) -> Any:
    """Return the value of a JSON text. Raises BadDocumentError, a ValueError, for a text that isn't JSON.

    `constants`: NaN and Infinity are numbers, as in Python; `unique`: a name that an object gives twice is refused.
    """
    try:
        value = json.loads(
            text,
            parse_int=_whole_number,
            parse_constant=None if constants else _refuse_constant,
            object_pairs_hook=_object if unique else None,
        )
    except json.JSONDecodeError as error:
        raise BadDocumentError(error.msg) from None
    except UnicodeDecodeError:
        raise BadDocumentError("it is not UTF-8") from None
    except RecursionError:
        raise BadDocumentError(f"it is nested deeper than {DEEPEST} levels") from None
    # most documents have not so many brackets at all
    if isinstance(text, bytes) or text.count("[") + text.count("{") > DEEPEST:
        check_depth(value)
    return value


def read_json(
    path: str | os.PathLike[str], kind: str, way_out: str, *, most: int = LARGEST, unique: bool = True
) -> Any:
    """Return the value of a JSON file. Raises InputError that names the `kind`, the path and the `way_out`."""
    text = read_text(path, kind, way_out, most=most)
    try:
        return parse_json(text, unique=unique)
    except BadDocumentError as error:
        raise InputError(f"{kind} {path} can't be read as JSON ({error}): {way_out}") from None


def check_depth(value: Any) -> None:
    """Raise BadDocumentError where lists and objects are nested deeper than DEEPEST."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise BadDocumentError(f"it is nested deeper than {DEEPEST} levels")


def read_yaml(path: str | os.PathLike[str], kind: str, way_out: str) -> Any:
    """Return the value of a YAML file. Raises InputError that names the `kind`, the path and the `way_out`."""
    text = read_text(path, kind, way_out, most=LARGEST_YAML)
    try:
        return parse_yaml(text)
    except BadDocumentError as error:
        raise InputError(f"{kind} {path} can't be read as YAML ({error}): {way_out}") from None


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text of plain values. Raises BadDocumentError for anything else."""
    import yaml

    try:
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadDocumentError(" ".join(str(error).split())) from None
    except BadDocumentError:
        raise
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        # dates that don't exist, numbers that are too long
        raise BadDocumentError(" ".join(str(error).split())[:120]) from None


def _check_events(events: Iterator[Any]) -> None:
    """Count what a document holds with all its aliases written out, while it is read."""
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise BadDocumentError(f"its alias {event.anchor[:40]!r} holds itself or nothing")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_nodes.append((event.anchor, total - 1))
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            if len(event.value) > LONGEST_SCALAR:
                raise BadDocumentError(f"it holds a value of {len(event.value)} letters")
        if total > MOST_NODES:
            raise BadDocumentError(f"it holds more than {MOST_NODES} values once its aliases are written out")
        if len(open_nodes) > DEEPEST:
            raise BadDocumentError(f"it is nested deeper than {DEEPEST} levels")


def shown(value: Any, longest: int = 60) -> str:
    """Return a value for a message, shortened; a large one is not written out for that."""
    if isinstance(value, str | bytes):
        text = repr(value[:longest])
    elif isinstance(value, dict | list | tuple):
        import reprlib

        text = reprlib.repr(value)
    else:
        text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise BadDocumentError(f"it holds a number of {len(text)} digits")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise BadDocumentError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise BadDocumentError(f"it gives {twice[:40]!r} twice")
    return found
