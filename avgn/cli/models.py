"""avgn models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from avgn.cli.options import make_parser, write_json


def models(argv: Sequence[str]) -> None:
    parser = make_parser("models", "The systems that avgn train --system takes.")
    parser.add_argument("--json", type=str | None, default=None, help="write the same as JSON")
    args = parser.parse_args(argv)
    from avgn.baselines.registry import SYSTEMS, systems_table

    print("\n".join(systems_table()))
    if args.json is not None:
        rows = [asdict(system) | {"class_aware": system.class_aware} for system in SYSTEMS.values()]
        write_json(args.json, rows)
