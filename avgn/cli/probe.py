"""avgn probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avgn.cli.options import Report, make_parser


def probe(argv: Sequence[str]) -> None:
    parser = make_parser("probe", "Show what a media file holds, and what of it would be read.")
    parser.add_argument("file", type=str, help="video or sound file")
    parser.add_argument("--audio-track", type=str | None, default=None, help="as for avgn localize")
    parser.add_argument(
        "--json", type=str | None, default=None, help="write the facts to a file; - for standard output"
    )
    args = parser.parse_args(argv)
    from avgn.runtime.probe import lines
    from avgn.runtime.probe import probe as look

    report = Report(args.json, Path(args.file))
    facts = look(args.file, args.audio_track)
    report.write(facts)
    report.say("\n".join(lines(facts)))
