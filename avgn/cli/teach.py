"""avgn teach, classes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from avgn.cli.options import Report, make_parser, split_names
from avgn.runtime.errors import InputError
from avgn.runtime.texts import printable

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
    from avgn.teach import Changes, give_lesson
    from avgn.teach.report import report_lines

    changes = Changes(
        classes=_pairs("--class", args["class"], "kettle=clips/kettle"),
        names=args.names,
        merge={new: split_names(old) for new, old in _merged(args.merge).items()},
        rename=_pairs("--rename", args.rename, "dog=Rex"),
        keep=split_names(args.keep),
        remove=split_names(args.remove),
        replace=args.replace,
    )
    report = Report(args.report)
    if args.manifest is not None and not changes.classes:
        raise InputError("--manifest writes the examples of --class: give some")
    lesson = give_lesson(
        args.bundle,
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


def _several(option: str, given: Sequence[str] | None, example: str) -> list[tuple[str, str]]:
    found = []
    for text in given or ():
        before, joined, after = text.partition("=")
        if not joined or not before.strip() or not after.strip():
            raise InputError(f"{option} must be two parts with = between them, got {text!r}: for example {example}")
        found.append((before.strip(), after.strip()))
    return found


def _pairs(option: str, given: Sequence[str] | None, example: str) -> dict[str, str]:
    return _once(option, _several(option, given, example))


def _merged(given: Sequence[str] | None) -> dict[str, str]:
    pairs = _several("--merge", given, "car,truck=vehicle")
    return _once("--merge", [(new, old) for old, new in pairs])


def _once(option: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    double = [name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1]
    if double:
        raise InputError(f"{option} names {double[0]!r} twice: give it once")
    return dict(pairs)
