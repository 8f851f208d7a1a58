"""Data sets as their users have them on disk, made by hand."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avgn.importers import ImportOptions
from avgn.runtime.manifest import Item, Source

METADATA = Path(__file__).resolve().parents[2].parent / "shared" / "metadata"
RATE = 8_000


def write_jpg(path: Path, size: tuple[int, int] = (24, 32), value: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def write_wav(path: Path, seconds: float = 0.1, value: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.full(round(seconds * RATE), value, "<i2").tobytes())
    return path


def place(root: Path, clip: Path, *names: str) -> Path:
    """Copies of a clip under `root`, by these names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, path)
    return root


def write_files(root: Path, frames: Iterable[str], audio: Iterable[str]) -> Path:
    """frames/<id>.jpg and audio/<id>.wav under `root`."""
    for id in frames:
        write_jpg(root / "frames" / f"{id}.jpg")
    for id in audio:
        write_wav(root / "audio" / f"{id}.wav")
    return root


def link_files(root: Path, frames: Iterable[str], audio: Iterable[str]) -> Path:
    """The same for thousands of ids: hard links to one picture and one sound."""
    picture, sound = write_jpg(root / "one.jpg"), write_wav(root / "one.wav")
    for folder, names, suffix, target in (("frames", frames, "jpg", picture), ("audio", audio, "wav", sound)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in set(names):
            path = root / folder / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(target)
    return root


def write_list(root: Path, name: str, lines: Sequence[str], end: str = "\n") -> Path:
    path = root / "metadata" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join(lines).encode())
    return path


def write_annotation(root: Path, name: str, value: Any) -> Path:
    path = root / "metadata" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def options(root: Path, **values: Any) -> ImportOptions:
    values = {"metadata": root / "metadata", "output": root / "out.jsonl"} | values
    return ImportOptions(root=root, **values)


def said(source: Source) -> tuple[str, bool, bool]:
    return source.label, source.sounding, source.on_screen


def by_id(items: Iterable[Item]) -> dict[str, Item]:
    return {item.id: item for item in items}
