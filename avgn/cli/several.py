"""avgn localize with a folder or several files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from avgn.cli.options import load_localizer
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.texts import plain

NUM_EXAMPLES = 5


def is_several(args: Any) -> bool:
    """Return whether several files are asked for: a folder, several names, or outputs in a folder that is there."""
    if args.video is None:
        return False
    return bool(args.more) or os.path.isdir(args.video) or _is_folder(args.output)


def localize_several(args: Any, given: dict[str, Any]) -> None:
    """Localize all of them; `given` are further options of `localize_file`.

    Raises FailureError at the end when one could not be localized.
    """
    from avgn.runtime.several import list_jobs, localize_all

    videos = [args.video, *args.more]
    _check(args, videos)
    overlays, lines, events = (None if path is None else Path(path) for path in (args.output, args.json, args.csv))
    if overlays is not None and lines is None:
        lines = overlays
    outputs = [folder for folder in (overlays, lines, events) if folder is not None]
    jobs = list_jobs(videos, outputs, lambda message: print(f"avgn: {plain(message)}", file=sys.stderr))
    outcomes = localize_all(
        load_localizer(args),
        jobs,
        overlays=overlays,
        lines=lines,
        events=events,
        report=lambda message: print(plain(message), flush=True),
        show_progress=sys.stderr.isatty(),
        **given,
    )
    failed = [str(outcome.job.video) for outcome in outcomes if outcome.error is not None]
    frames = sum(outcome.summary.frames for outcome in outcomes if outcome.summary is not None)
    wall = sum(outcome.summary.wall_seconds for outcome in outcomes if outcome.summary is not None)
    rate = f", {frames / wall:.1f} frames/s" if wall else ""
    where = f", in {', '.join(str(folder) for folder in dict.fromkeys(outputs))}" if outputs else ""
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} videos, {frames} frames{rate}{where}")
    if failed:
        names = ", ".join(failed[:NUM_EXAMPLES]) + (", ..." if failed[NUM_EXAMPLES:] else "")
        raise FailureError(f"{len(failed)} of {len(outcomes)} videos could not be localized: {names}")


def _check(args: Any, videos: list[str]) -> None:
    from avgn.runtime.sources.address import is_url
    from avgn.runtime.sources.devices import is_camera

    for video in videos:
        if is_camera(video) or (is_url(video) and not Path(video).exists()):
            raise InputError(f"{video} is an address or a camera: localize it on its own, with files as outputs")
    for name in ("output", "json", "csv"):
        path = getattr(args, name)
        if path is not None and (path == "-" or (Path(path).exists() and not Path(path).is_dir())):
            raise InputError(f"--{name} {path} is a file, but must be a folder for several videos: give another path")
    for name in ("audio", "seconds", "microphone", "camera_size", "camera_fps"):
        if getattr(args, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} goes with one video: leave it out for {len(videos)} or a folder"
            )
    if args.live or args.no_live:
        raise InputError("--live and --no-live are for an address: leave them out")
    if args.show:
        raise InputError("--show is for live sources: write overlays with --output FOLDER and play them")


def _is_folder(path: str | None) -> bool:
    if path == "":
        raise InputError("output '' is empty: give the path of a file, or of a folder for several videos")
    return path is not None and (path.endswith(("/", "\\")) or os.path.isdir(path))
