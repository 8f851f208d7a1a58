"""avgn demo, doctor."""

from __future__ import annotations

from collections.abc import Sequence

from avgn.cli.options import make_parser
from avgn.runtime.bundle import DEFAULT
from avgn.runtime.errors import FailureError


def demo(argv: Sequence[str]) -> None:
    parser = make_parser("demo", "Localize the sources of a short video made for it.")
    parser.add_argument("--output", type=str, default="demo-out", help="folder for what the demo writes")
    parser.add_argument(
        "--bundle",
        type=str,
        default=DEFAULT,
        help="bundle folder or name: world is shown photographs and recordings, tiny a drawn scene",
    )
    parser.add_argument("--seconds", type=float | None, default=None, help="length of the drawn scene (default 12)")
    parser.add_argument("--seed", type=int | None, default=None, help="of the drawn scene (default 7)")
    args = parser.parse_args(argv)
    from avgn.demo import run_demo

    for line in run_demo(args.output, bundle=args.bundle, seconds=args.seconds, seed=args.seed):
        print(line)


def doctor(argv: Sequence[str]) -> None:
    parser = make_parser("doctor", "Try all that localizing a video needs here: what works, and what does not and why.")
    parser.add_argument("--bundle", type=str, default=DEFAULT, help="what is tried: bundle folder or name")
    args = parser.parse_args(argv)
    from avgn.doctor import about, examine

    found = examine(args.bundle)
    for line in (*found.lines(), *about(args.bundle)):
        print(line)
    if found.broken:
        raise FailureError(f"{len(found.broken)} of what localizing needs does not work here: see BROKEN above")
