"""Options of avgn localize that choose which part of a video is looked at, and how sure the model must be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from avgn.runtime.errors import InputError

if TYPE_CHECKING:
    from avgn.runtime.bundle import Bundle
    from avgn.runtime.bundle_schema import Joint

NAMES = ("start", "duration", "every")


def add_options(parser: Any) -> None:
    """Add the options; `--threshold` applies to every kind of source, the others to files."""
    group = parser.add_argument_group("what is looked at")
    group.add_argument("--start", type=float | None, default=None, help="files: start at this second of the video")
    group.add_argument(
        "--duration",
        type=float | None,
        default=None,
        help="files: localize this many seconds from there (live sources: --seconds)",
    )
    group.add_argument(
        "--every",
        type=float | None,
        default=None,
        help="files: localize one frame every so many seconds instead of every frame",
    )
    group.add_argument(
        "--threshold",
        type=str | None,
        default=None,
        help="how probable a class must be to count as heard, 0 to 1, instead of the bundle's calibrated thresholds: "
        "one number for all, or CLASS=NUMBER with commas between them",
    )


def chosen(args: Any) -> dict[str, Any]:
    """Return the options given, as keyword arguments of `localize_file`."""
    return {name: getattr(args, name) for name in NAMES if getattr(args, name) is not None}


def refuse_live(args: Any) -> None:
    """Raise InputError for what only a file has."""
    for name in NAMES:
        if getattr(args, name) is not None:
            other = "use --seconds to end it" if name == "duration" else "leave it out"
            raise InputError(f"--{name} is for video files: {other} for the live source {args.video}")


def with_threshold(name: str, text: str) -> Bundle:
    """Return the bundle with other audio thresholds, or visual ones for a model that has no others.

    Where both halves decide together, it is the probability of both that must be reached: 0.5 leaves it as it is.
    Raises InputError for a text or a class that can't be used.
    """
    from avgn.runtime.bundle import Bundle

    bundle = Bundle.load(name)
    info = bundle.info
    kind = "audio" if info.has_presence else "visual"
    values = dict(zip(info.classes, getattr(info.thresholds, kind), strict=True))
    joint = dict.fromkeys(info.classes, 0.5)
    for part in text.split(","):
        label, equals, number = part.rpartition("=")
        chosen = [label.strip()] if equals else list(info.classes)
        if unknown := [each for each in chosen if each not in values]:
            raise InputError(
                f"--threshold: {unknown[0]!r} is no class of {name}: use some of {', '.join(info.classes)}"
            )
        values |= dict.fromkeys(chosen, _number(number))
        joint |= dict.fromkeys(chosen, _number(number))
    info = replace(info, thresholds=replace(info.thresholds, **{kind: tuple(values.values())}))
    return replace(bundle, info=info if info.joint is None else replace(info, joint=_moved(info.joint, joint.values())))


def _moved(rule: Joint, probabilities: Iterable[float]) -> Joint:
    """Return the joint rule with its thresholds moved, from a probability of 0.5 to the given ones."""
    from avgn.runtime.joint import LIMIT

    odds = [math.log(max(p, 1e-9) / max(1 - p, 1e-9)) for p in probabilities]
    moved = (t + min(LIMIT, max(-LIMIT, each)) / rule.scale for t, each in zip(rule.thresholds, odds, strict=True))
    return replace(rule, thresholds=tuple(moved))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"--threshold must be a number from 0 to 1, got {text.strip()!r}: for example 0.5 or bell=0.8")
    return value
