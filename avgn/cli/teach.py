"""avgn teach, classes."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from avgn.cli.options import Report, make_parser
from avgn.runtime.errors import InputError
from avgn.runtime.texts import printable

if TYPE_CHECKING:
    from avgn.teach import Changes

DESCRIPTION = """Teach a bundle of real things your own classes from a handful of clips, or let it forget some.

FOLDER holds short clips with sound, or pictures and sounds side by side. A picture may say where the thing is:
name.json beside it holds {"boxes": [[x1, y1, x2, y2]]} in parts of its sides, or name.mask.png is bright there.

Changes are made in this order: --merge, --rename, --keep or --remove, --names, --class."""


def teach(argv: Sequence[str]) -> None:
    parser = make_parser("teach", DESCRIPTION)
    parser.add_argument("bundle", type=str, help="bundle folder, or the name world")
    parser.add_argument("output", type=str, help="folder of the new bundle")
    parser.add_argument("--class", action="append", help="NAME=FOLDER of examples; may be repeated")
    parser.add_argument(
        "--names",
        type=str,
        nargs="+",
        default=[],
        help="names of AudioSet and ImageNet that become classes without examples; NAME=HEARD+SEEN joins two "
        "(avgn classes --search WORD finds them)",
    )
    parser.add_argument("--merge", action="append", help="A,B=NAME: one class of several; may be repeated")
    parser.add_argument("--rename", action="append", help="OLD=NEW; may be repeated")
    parser.add_argument("--keep", type=str, default="", help="comma-separated: leave all other classes out")
    parser.add_argument("--remove", type=str, default="", help="comma-separated: leave these classes out")
    parser.add_argument("--replace", action="store_true", help="teach classes anew that the bundle has")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that lies in the folder")
    parser.add_argument("--report", type=str | None, default=None, help="write the report as JSON to this file")
    parser.add_argument(
        "--manifest", type=str | None, default=None, help="folder that the examples are written to for avgn train"
    )
    args = parser.parse_args(argv)
    from avgn.runtime.bundle import Bundle
    from avgn.teach import give_lesson
    from avgn.teach.report import report_lines

    bundle = Bundle.load(args.bundle)
    changes = _changes(args, bundle.info.classes)
    report = Report(args.report)
    if args.manifest is not None and not changes.classes:
        raise InputError("--manifest writes the examples of --class: give some")
    lesson = give_lesson(
        bundle,
        changes,
        args.output,
        overwrite=args.overwrite,
        manifest=args.manifest,
        say=lambda message: print(printable(message), file=sys.stderr),
    )
    report.write(lesson.report)
    report.say("\n".join(report_lines(lesson.report)))
    report.say(lesson.bundle.path)


def classes(argv: Sequence[str]) -> None:
    parser = make_parser(
        "classes", "List a bundle's classes, and with --search the names that avgn teach --names can make classes of."
    )
    parser.add_argument("bundle", type=str, nargs="?", default="world", help="bundle folder, or the name world or tiny")
    parser.add_argument("--search", type=str | None, default=None, help="a word that the names hold")
    parser.add_argument("--json", type=str | None, default=None, help="write the rows to this file")
    args = parser.parse_args(argv)
    from avgn.runtime.bundle import Bundle

    report = Report(args.json)
    labels = Bundle.load(args.bundle).info.classes
    missing: list[str] = []
    rows: list[dict[str, Any]] = [{"name": label, "from": "bundle"} for label in labels]
    if args.search is not None:
        if not args.search.strip():
            raise InputError("--search needs a word: leave it out to list the bundle's classes")
        from avgn.teach.names import search

        rows, missing = search(args.search.strip(), labels)
    report.write(rows)
    report.say("\n".join(f"{row['from']:10}{row['name']}" for row in rows) or f"no name holds {args.search!r}")
    for reason in missing:
        print(printable(f"not looked through: {reason}"), file=sys.stderr)


def _changes(args: Any, labels: Sequence[str]) -> Changes:
    """Read the options; names may hold the commas and the = that stand between names, where the bundle has them."""
    from avgn.teach import Changes

    known = Known(labels)
    classes = _several("--class", args["class"], "kettle=clips/kettle", lambda _, folder: os.path.isdir(folder))
    merged = _several("--merge", args.merge, "car,truck=vehicle", lambda old, _: known.has_all(old))
    merge = {new: known.split(old) for new, old in _once("--merge", [(new, old) for old, new in merged]).items()}
    known = Known([*labels, *merge])
    renamed = _several("--rename", args.rename, "dog=Rex", lambda old, _: known.has(old))
    rename = _once("--rename", renamed)
    known = Known([*labels, *merge, *rename.values()])
    return Changes(
        classes=_once("--class", classes),
        names=args.names,
        merge=merge,
        rename=rename,
        keep=known.split(args.keep),
        remove=known.split(args.remove),
        replace=args.replace,
    )


class Known:
    """The names that classes have, which say where a name with commas in it ends."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = {unicodedata.normalize("NFC", label) for label in labels}

    def has(self, name: str) -> bool:
        return unicodedata.normalize("NFC", name) in self._labels

    def has_all(self, text: str) -> bool:
        """Return whether a comma-separated text names classes alone."""
        return all(map(self.has, self.split(text)))

    def split(self, text: str) -> list[str]:
        """Split at commas, but not within the longest names that are known."""
        parts, names = text.split(","), []
        while parts:
            ends = range(len(parts), 0, -1)
            end = next((end for end in ends if self.has(",".join(parts[:end]).strip())), 1)
            names.append(",".join(parts[:end]).strip())
            parts = parts[end:]
        return [name for name in names if name]


def _several(
    option: str, given: Sequence[str] | None, example: str, makes_sense: Callable[[str, str], bool]
) -> list[tuple[str, str]]:
    """Split each text at the first = that makes sense, or else at the first one."""
    found = []
    for text in given or ():
        parts = text.split("=")
        pairs = [("=".join(parts[:at]).strip(), "=".join(parts[at:]).strip()) for at in range(1, len(parts))]
        if not pairs or not all(pairs[0]):
            raise InputError(f"{option} must be two parts with = between them, got {text!r}: for example {example}")
        found.append(next((pair for pair in pairs if all(pair) and makes_sense(*pair)), pairs[0]))
    return found


def _once(option: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    double = [name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1]
    if double:
        raise InputError(f"{option} names {double[0]!r} twice: give it once")
    return dict(pairs)
