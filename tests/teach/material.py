"""Clips, pictures and sounds of a dog out of the demo's material, as somebody's own examples."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avgn.demo.collage import MATERIAL, read_recording
from avgn.runtime.arrays import Floats
from avgn.runtime.reading import read_still
from avgn.scenes.synth import RATE
from avgn.scenes.writer import write_wav

COUNT = 6


def dog_pictures(folder: Path, count: int = COUNT) -> None:
    """Crops of one photograph, some mirrored, under other light."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = read_still("picture", MATERIAL / "dog.jpg")
    random = np.random.default_rng(1)
    for number in range(count):
        height, width = whole.shape[:2]
        top, left = (int(random.integers(0, side // 6)) for side in (height, width))
        crop = whole[top : height - (height // 6 - top), left : width - (width // 6 - left)]
        crop = crop[:, ::-1] if number % 2 else crop
        cv2.imwrite(str(folder / f"p{number}.jpg"), np.clip(crop * random.uniform(0.7, 1.3), 0, 255).astype(np.uint8))


def dog_sounds(folder: Path, count: int = COUNT) -> None:
    """Pieces of one recording."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = read_recording("dog.flac")
    random = np.random.default_rng(2)
    length = min(len(whole), 2 * RATE)
    for number in range(count):
        at = int(random.integers(0, len(whole) - length + 1))
        write_wav(folder / f"s{number}.wav", np.asarray(whole[at : at + length] * random.uniform(0.4, 1), np.float32))


def tone(path: Path, frequency: float, level: float = 0.3) -> Path:
    time = np.arange(2 * RATE) / RATE
    sound: Floats = (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
    write_wav(path, sound)
    return path
