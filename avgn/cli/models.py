"""avgn models."""

from __future__ import annotations

from collections.abc import Sequence

from avgn.cli.options import Report, make_parser


def models(argv: Sequence[str]) -> None:
    parser = make_parser("models", "The systems that avgn train --system takes.")
    parser.add_argument("--json", type=str | None, default=None, help="write the same as JSON")
    args = parser.parse_args(argv)
    from avgn.systems import SYSTEMS, systems_table

    report = Report(args.json)
    report.write([system.facts() for system in SYSTEMS.values()])
    report.say("\n".join(systems_table()))
