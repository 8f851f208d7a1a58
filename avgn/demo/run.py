"""Runs the demo: writes a video and localizes its sources, with runtime dependencies alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avgn.demo import collage
from avgn.demo.sheet import Sheet
from avgn.runtime import InputError, Localizer, localize_file
from avgn.runtime.manifest import Source
from avgn.runtime.outputs import no_empty_folders, write_error
from avgn.scenes import SceneConfig
from avgn.scenes.video import MAX_SECONDS, write_scene_video

SCENE = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
# of the drawn video
SECONDS, SEED = 12.0, 7


def run_demo(
    output: str | os.PathLike[str], *, bundle: str, seconds: float | None = None, seed: int | None = None
) -> list[str]:
    """Write OUT/scene.mp4, overlay.mp4, results.jsonl and sheet.png; returns a table for people.

    A bundle that knows the things of the photographs (`collage`) is shown them, any other one a drawn scene of
    `seconds` and `seed`. Raises InputError for a folder that can't be written, a bundle that can't be used, or a
    length or a seed for the photographs.
    """
    localizer = Localizer.load(bundle)
    is_real = collage.LABELS.issubset(localizer.bundle.classes)
    for name, value in (("seconds", seconds), ("seed", seed)):
        if is_real and value is not None:
            raise InputError(f"--{name} is for drawn scenes: leave it out, or add --bundle tiny")
    length = collage.SECONDS if is_real else SECONDS if seconds is None else seconds
    if not 1 <= length <= MAX_SECONDS:
        raise InputError(f"--seconds {length} is not usable: use 1 to {MAX_SECONDS}")
    folder = Path(output)
    with no_empty_folders(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error, "folder") from None
        video = folder / "scene.mp4"
        truth = collage.write_collage(video) if is_real else _draw(video, length, SEED if seed is None else seed)
        sheet = Sheet(length)
        summary = localize_file(
            localizer, video, output=folder / "overlay.mp4", json_path=folder / "results.jsonl", sinks=[sheet]
        )
        sheet.write(folder / "sheet.png")
    return [
        "truth",
        *_truth_lines(truth),
        "",
        f"found by {bundle} ({summary.engine})",
        *summary.lines(),
        "",
        *(str(folder / name) for name in ("scene.mp4", "overlay.mp4", "results.jsonl", "sheet.png")),
    ]


def _draw(video: Path, seconds: float, seed: int) -> tuple[Source, ...]:
    return write_scene_video(video, seed=seed, seconds=seconds, split="test", config=SCENE).sources


def _truth_lines(sources: Sequence[Source]) -> list[str]:
    lines = []
    for source in sources:
        facts: Any = source.intervals
        spans = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in facts or ()) or "never"
        lines.append(f"  {source.label:8s} sounds {spans}{'' if source.on_screen else ' (off-screen)'}")
    return lines
