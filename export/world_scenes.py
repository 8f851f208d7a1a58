"""Scenes that the 8-bit graphs of the world model are calibrated on: the demo's photographs and recordings, composed.

The material lies inside the package and is free, so that nothing has to be fetched and the same scenes come every time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.demo.collage import CUES, PANELS, Panel, read_panel, read_recording
from avgn.runtime.arrays import Pixels
from avgn.runtime.manifest import Box, Item, Manifest, Source, read_manifest, write_manifest
from avgn.scenes.backgrounds import draw_background
from avgn.scenes.draw import Draw
from avgn.scenes.synth import RATE, Wave
from avgn.scenes.writer import write_wav
from avgn.world.classes import world_classes

SIDE = 320
SECONDS = 3.2
# of the picture's side: how high a photograph is, from a thing in a room to one that fills the picture
HEIGHTS = (0.25, 0.9)
GAINS_DB = (-12.0, 0.0)
NOISE_DB = (-60.0, -25.0)
# how often a photograph is tried that would hide another one
TRIES = 4
# of the scenes, those with nothing but noise to hear
SILENT_SHARE = 0.15


def write_scenes(folder: Path, count: int, seed: int = 0) -> Manifest:
    """Write `count` scenes of one to three photographs, some of which sound, and their manifest into `folder`.

    Scene n depends on the seed and n alone. Raises MissingExtraError where the material can't be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photographs = {panel.label: read_panel(panel.label) for panel in PANELS}
    recordings = {cue.label: read_recording(cue.file) for cue in CUES}
    items = []
    for n in range(count):
        draw = Draw(np.random.default_rng((seed, n)), "train")
        _, background = draw_background(draw, SIDE, SIDE)
        image = (255 * background).astype(np.uint8)
        wanted = draw.integer(1, 3)
        boxes: dict[str, Box] = {}
        for panel in [PANELS[at] for at in draw.rng.permutation(np.repeat(range(len(PANELS)), TRIES))]:
            if len(boxes) == wanted or panel.label in boxes:
                continue
            if (box := _place(image, photographs[panel.label], panel, boxes.values(), draw)) is not None:
                boxes[panel.label] = box
        quiet = draw.chance(SILENT_SHARE)
        sounding = [label for label in boxes if label in recordings and not quiet and draw.chance(0.75)]
        frame, audio = folder / f"{n:03d}.png", folder / f"{n:03d}.wav"
        cv2.imwrite(str(frame), image[..., ::-1])
        write_wav(audio, _mix([recordings[label] for label in sounding], draw))
        sources = tuple(
            Source(label=label, sounding=label in sounding, on_screen=True, boxes=(box,))
            for label, box in boxes.items()
        )
        name = frame.stem
        items.append(
            Item(id=name, video=name, frame=frame, audio=audio, sources=sources, split="train", dataset="demo")
        )
    manifest = folder / "manifest.jsonl"
    write_manifest(manifest, tuple(world_classes()), items)
    return read_manifest(manifest)


def _place(image: Pixels, photograph: Pixels, panel: Panel, taken: Iterable[Box], draw: Draw) -> Box | None:
    """Lay a photograph over a part of the picture, and return where the thing in it is; None where it would hide
    another."""
    high = max(32, round(SIDE * draw.uniform(*HEIGHTS)))
    wide = max(32, round(high * photograph.shape[1] / photograph.shape[0]))
    shown = cv2.resize(photograph, (wide, high), interpolation=cv2.INTER_AREA)
    if mirrored := draw.chance(0.5):
        shown = shown[:, ::-1]
    shown = np.clip(shown * np.float32(draw.uniform(0.6, 1.3)), 0, 255).astype(np.uint8)
    left, top = (draw.integer(min(0, SIDE - size), max(0, SIDE - size)) for size in (wide, high))
    if any(
        left / SIDE < x2 and x1 < (left + wide) / SIDE and top / SIDE < y2 and y1 < (top + high) / SIDE
        for x1, y1, x2, y2 in taken
    ):
        return None
    rows, columns = slice(max(0, top), min(SIDE, top + high)), slice(max(0, left), min(SIDE, left + wide))
    image[rows, columns] = shown[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    x1, y1, x2, y2 = panel.box
    if mirrored:
        x1, x2 = 1 - x2, 1 - x1
    box = np.array([left + x1 * wide, top + y1 * high, left + x2 * wide, top + y2 * high]) / SIDE
    first, second, third, fourth = np.clip(box, 0, 1).tolist()
    return (first, second, third, fourth)


def _mix(recordings: list[Wave], draw: Draw) -> Wave:
    """Mix a piece of each recording, and noise: float32 [T] at 22 050 Hz."""
    count = round(SECONDS * RATE)
    mixed: NDArray[np.float64] = 10 ** (draw.uniform(*NOISE_DB) / 20) * draw.rng.standard_normal(count)
    for recording in recordings:
        whole = np.tile(recording, -(-2 * count // len(recording)))
        begin = draw.integer(0, count - 1)
        mixed += 10 ** (draw.uniform(*GAINS_DB) / 20) * whole[begin : begin + count]
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)
