"""Writes the examples of a lesson as a manifest, so that `avgn train` can learn from them the paper's way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.folders import VIDEO_SUFFIXES
from avgn.runtime.image import import_cv2
from avgn.runtime.manifest import Item, Source, write_manifest
from avgn.runtime.outputs import new_folder
from avgn.teach.examples import Example, Examples, read_frames
from avgn.teach.marks import find_mask, read_boxes

MANIFEST = "manifest.jsonl"
# pixels of a clip's frame that is written
SIDE = (480, 480)


def write_examples(classes: Sequence[Examples], target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write manifest.jsonl, and frames of the clips, into a new folder; returns the manifest's path.

    Each sound goes with the picture of its clip, or with one of the class's pictures. Raises InputError for a folder
    that can't be written, and where no class has both.
    """
    with new_folder(target, "folder", overwrite=overwrite) as folder:
        items = [item for examples in classes for item in _items(examples, folder, Path(target).resolve())]
        if not items:
            raise InputError("no class has pictures and sounds: a manifest for training needs both")
        write_manifest(folder / MANIFEST, tuple(examples.label for examples in classes), items)
    return Path(target) / MANIFEST


def _items(examples: Examples, folder: Path, place: Path) -> Iterator[Item]:
    for number, (shown, heard) in enumerate(_pairs(examples)):
        assert shown.found is not None and shown.found.picture is not None
        assert heard.found is not None and heard.found.sound is not None
        name = f"{len(list(folder.glob('*.png'))):04d}-{number:03d}"
        frame = shown.found.picture.resolve()
        boxes: tuple[tuple[float, float, float, float], ...] = ()
        mask = None
        if frame.suffix.lower() in VIDEO_SUFFIXES:
            picture = read_frames(frame, SIDE, (0.5,))[0]
            frame = folder / f"{name}.png"
            import_cv2().imwrite(str(frame), picture[..., ::-1])
        else:
            beside, mask = frame.with_suffix(".json"), find_mask(frame)
            boxes = tuple(read_boxes(beside)) if mask is None and beside.is_file() else ((0.0, 0.0, 1.0, 1.0),)
        source = Source(label=examples.label, sounding=True, on_screen=True, boxes=boxes, mask=mask)
        yield Item(
            id=f"{examples.label}-{number:03d}",
            video=f"{examples.label}-{number:03d}",
            frame=frame,
            audio=heard.found.sound.resolve(),
            sources=(source,),
            split="train",
            dataset="taught",
        )


def _pairs(examples: Examples) -> list[tuple[Example, Example]]:
    seen = examples.seen
    if not seen:
        return []
    return [(each if each.pictures else seen[number % len(seen)], each) for number, each in enumerate(examples.sounds)]
