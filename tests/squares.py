"""Easy labelled scenes for tests that train: a coloured square a class, each with its own tone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avgn.runtime.manifest import Item, Source, write_manifest
from avgn.scenes import write_wav

CLASSES = ("blue", "green", "red", "white")
COLORS = ((40, 40, 230), (40, 220, 40), (230, 40, 40), (235, 235, 235))
TONES = (300.0, 800.0, 2000.0, 5000.0)
RATE = 22_050
SIDE = 64


def write_squares(folder: Path, count: int, *, seed: int = 0, split: str = "train", seconds: float = 0.6) -> Path:
    """Write scenes of one or two sounding squares and one silent one; returns the manifest."""
    rng = np.random.default_rng((seed, count))
    folder.mkdir(parents=True)
    items = []
    for index in range(count):
        frame = rng.integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
        sound = 0.01 * rng.standard_normal(round(seconds * RATE))
        chosen = rng.permutation(4)[: int(rng.integers(2, 4))]
        corners = rng.permutation(4)[: len(chosen)]
        sources = []
        for place, (kind, corner) in enumerate(zip(chosen, corners, strict=True)):
            side = int(rng.integers(18, 26))
            top, left = (int(32 * q + rng.integers(0, 32 - side)) for q in divmod(int(corner), 2))
            frame[top : top + side, left : left + side] = COLORS[kind]
            sounding = place < len(chosen) - 1
            if sounding:
                time = np.arange(len(sound)) / RATE
                sound += 0.2 * np.sin(2 * np.pi * TONES[kind] * time + rng.uniform(0, 6))
            box = (left / SIDE, top / SIDE, (left + side) / SIDE, (top + side) / SIDE)
            sources.append(Source(label=CLASSES[kind], sounding=sounding, on_screen=True, boxes=(box,)))
        name = f"{split}-{seed}-{index:04d}"
        cv2.imwrite(str(folder / f"{name}.png"), frame[:, :, ::-1])
        write_wav(folder / f"{name}.wav", sound.astype(np.float32))
        items.append(
            Item(
                id=name,
                frame=folder / f"{name}.png",
                audio=folder / f"{name}.wav",
                sources=tuple(sources),
                split=split,
                dataset="squares",
                video=name,
            )
        )
    manifest = folder / "manifest.jsonl"
    write_manifest(manifest, CLASSES, items)
    return manifest
