"""avgn import, inspect."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avgn.cli.options import Report, make_parser


def _import_parser() -> Any:
    """Declare the options."""
    from avgn.importers.registry import IMPORTERS

    parser = make_parser("import", "Read a data set as its users have it on disk and write one manifest.")
    parser.epilog = "data sets and the lists that they read:\n  " + "\n  ".join(
        f"{name:22}{entry.lists}" for name, entry in IMPORTERS.items()
    )
    parser.add_argument("kind", type=str, help=", ".join(IMPORTERS))
    parser.add_argument("root", type=str, help="the folder that holds frames/ and audio/, or videos")
    parser.add_argument(
        "--metadata", type=str | None, default=None, help="the folder of the lists (default: ROOT/metadata)"
    )
    parser.add_argument("-o", "--output", type=str, required=True, help="the manifest, for example test.jsonl")
    parser.add_argument("--split", type=str, default="test", help="train or test")
    parser.add_argument(
        "--boxes",
        type=str | None,
        default=None,
        help="order of a box's numbers, xywh or xyxy, if the lists were changed",
    )
    parser.add_argument("--classes", type=str | None, default=None, help="class list: a text file, or a manifest")
    parser.add_argument("--extended", action="store_true", help="add silent negatives, or the pairs of instruments")
    parser.add_argument("--labels", type=str | None, default=None, help="videos: a csv of files and their classes")
    parser.add_argument("--fps", type=float, default=1.0, help="videos: frames a second")
    parser.add_argument("--window", type=float, default=3.0, help="videos: seconds of sound around a frame")
    parser.add_argument(
        "--audio-track",
        type=str | None,
        default=None,
        help="videos with several sound tracks: a number, from 1, or a language, such as eng (default: the file's own)",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes that cut videos; threads of --check"
    )
    parser.add_argument("--check", action="store_true", help="decode every frame and sound, and leave out damaged ones")
    parser.add_argument("--strict", action="store_true", help="fail if anything is missing or wrong")
    parser.add_argument("--json", type=str | None, default=None, help="write the report to this file")
    return parser


def import_data(argv: Sequence[str]) -> None:
    args = _import_parser().parse_args(argv)
    from avgn.importers.base import ImportOptions
    from avgn.importers.registry import IMPORTERS, VIDEOS, import_dataset, read_class_list
    from avgn.runtime.errors import InputError

    if args.boxes not in (None, "xywh", "xyxy"):
        raise InputError(f"--boxes must be xywh or xyxy, got {args.boxes!r}")
    for name, default in (("fps", 1.0), ("window", 3.0), ("labels", None)):
        if args.kind in IMPORTERS and args.kind != VIDEOS and getattr(args, name) != default:
            raise InputError(f"--{name} is for avgn import {VIDEOS}: leave it out for {args.kind}")
    root = Path(args.root)
    options = ImportOptions(
        root=root,
        metadata=Path(args.metadata) if args.metadata else root / "metadata",
        output=Path(args.output),
        split=args.split,
        boxes=args.boxes,
        classes=None if args.classes is None else read_class_list(Path(args.classes)),
        extended=args.extended,
        fps=args.fps,
        window=args.window,
        audio_track=args.audio_track,
        labels=None if args.labels is None else Path(args.labels),
        jobs=args.jobs,
        check=args.check,
        show_progress=sys.stderr.isatty(),
    )
    report = Report(args.json)
    found = import_dataset(args.kind, options, strict=args.strict)
    report.write(found.report.to_json(found.items))
    report.say("\n".join(found.report.lines(found.items)))
    report.say(args.output)


def inspect_data(argv: Sequence[str]) -> None:
    parser = make_parser("inspect", "Count what is in a manifest, and draw some of its items with their truth.")
    parser.add_argument("manifest", type=str, help="manifest.jsonl")
    parser.add_argument(
        "-o", "--output", type=str | None, default=None, help="folder for sheet.png and index.html with drawn items"
    )
    parser.add_argument("--count", type=int, default=24, help="how many items to draw, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of items")
    parser.add_argument("--json", type=str | None, default=None, help="write the statistics to this file")
    args = parser.parse_args(argv)
    from avgn.inspection import draw_cards, lines_of, pick, summarize, write_page, write_sheet
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest
    from avgn.runtime.outputs import no_empty_folders, write_error

    report = Report(args.json, Path(args.manifest))
    manifest = read_manifest(args.manifest)
    items = pick(manifest.items, args.count, args.seed)
    summary = summarize(manifest)
    report.write(summary)
    report.say("\n".join(lines_of(summary)))
    if args.output is None:
        return
    folder = Path(args.output)
    with no_empty_folders(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error, "folder") from None
        with Progress("items", len(items)) as progress:
            cards = draw_cards(manifest, items, progress)
        report.say(write_sheet(folder / "sheet.png", cards))
        report.say(write_page(folder / "index.html", summary, cards))
