"""Which bundle a command runs where people may leave it out, and which of its words is a bundle at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from avgn.runtime.bundle import BUNDLE_FILE, DEFAULT, SHIPPED

# what people give by mistake for the bundle that lies around it
_PARTS = (".json", ".onnx", ".safetensors", ".pt", ".pth", ".ckpt")


def bundle_or_default(bundle: str | None) -> str:
    """Return the bundle given; where there is none the shipped default, which is said on standard error."""
    if bundle is not None:
        return bundle
    print(f"avgn: no bundle is named: {DEFAULT}, the package's own for real things, is used", file=sys.stderr)
    return DEFAULT


def split_bundle(words: Sequence[str], *, is_alone: bool = False) -> tuple[str | None, list[str]]:
    """Split [BUNDLE] VIDEO ... into the bundle, or None, and the videos. `is_alone`: no video is expected."""
    if words and _is_bundle(words[0], words[1:], is_alone):
        return words[0], list(words[1:])
    return None, list(words)


def _is_bundle(word: str, others: Sequence[str], is_alone: bool) -> bool:
    """Return whether the first word is a bundle: a shipped name, a folder that holds a bundle or a checkpoint, a file
    of one; with words behind it also a folder without videos, and what has no video's suffix and is no file."""
    from avgn.runtime.folders import VIDEO_SUFFIXES, PassedOver, find_videos
    from avgn.runtime.sources.devices import camera_name, is_camera

    if word in SHIPPED:
        return True
    if is_camera(camera_name(word)) or "://" in word or word.lower().startswith("file:"):
        return False
    path = Path(word)
    if os.path.isdir(path):
        if any((path / name).is_file() for name in (BUNDLE_FILE, "config.json")):
            return True
        return bool(others or is_alone) and next(find_videos(path, PassedOver()), None) is None
    if os.path.isfile(path) or (os.path.lexists(path) and path.suffix.lower() in _PARTS):
        return path.suffix.lower() in _PARTS
    # before a video, what is not there, a FIFO, a device, a socket or a link to itself can only be meant as the bundle
    return bool(others or is_alone) and path.suffix.lower() not in VIDEO_SUFFIXES
