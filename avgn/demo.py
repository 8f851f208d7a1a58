"""Runs the demo: renders a video and localizes its sources, with runtime dependencies alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime import InputError, Localizer, Result, localize_file
from avgn.runtime.arrays import Pixels
from avgn.runtime.outputs import write_error, write_whole
from avgn.runtime.sinks.labels import GRAY, Labels
from avgn.scenes import SceneConfig
from avgn.scenes.video import MAX_SECONDS, VideoTruth, write_scene_video

SHEET_COLUMNS = 3
SHEET_ROWS = 4
TILE = (360, 640)
SCENE = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)


class Sheet:
    """Collects overlay frames, evenly spread over the video, for a contact sheet."""

    def __init__(self, seconds: float) -> None:
        self.step = seconds / (SHEET_COLUMNS * SHEET_ROWS)
        self.tiles: list[Pixels] = []

    def __call__(self, result: Result, rgb: Pixels) -> None:
        if result.time >= (len(self.tiles) + 0.5) * self.step and len(self.tiles) < SHEET_COLUMNS * SHEET_ROWS:
            tile = np.ascontiguousarray(result.plot(rgb))
            labels = Labels(tile, 8)
            labels.put(f"{result.time:.1f} s", "", GRAY, (0, tile.shape[0]))
            self.tiles.append(tile)

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG."""
        import cv2

        blank = np.zeros((*TILE, 3), np.uint8)
        tiles = self.tiles + [blank] * (SHEET_COLUMNS * SHEET_ROWS - len(self.tiles))
        rows = [np.hstack(tiles[i : i + SHEET_COLUMNS]) for i in range(0, len(tiles), SHEET_COLUMNS)]
        done, data = cv2.imencode(".png", np.vstack(rows)[:, :, ::-1])
        assert done
        write_whole(path, data.tobytes(), "sheet")


def run_demo(output: str | os.PathLike[str], *, bundle: str, seconds: float, seed: int) -> list[str]:
    """Render OUT/scene.mp4, write overlay.mp4, results.jsonl and sheet.png; returns a table for people.

    Raises InputError for a folder that can't be written or a bundle that can't be used.
    """
    localizer = Localizer.load(bundle)
    if not 1 <= seconds <= MAX_SECONDS:
        raise InputError(f"--seconds {seconds} is not usable: use 1 to {MAX_SECONDS}")
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error, "folder") from None
    video = folder / "scene.mp4"
    truth = write_scene_video(video, seed=seed, seconds=seconds, split="test", config=SCENE)
    sheet = Sheet(seconds)
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


def _truth_lines(truth: VideoTruth) -> list[str]:
    lines = []
    for source in truth.sources:
        facts: Any = source.intervals
        spans = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in facts or ()) or "never"
        lines.append(f"  {source.label:8s} sounds {spans}{'' if source.on_screen else ' (off-screen)'}")
    return lines
