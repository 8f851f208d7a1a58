"""What workers are given and what they answer: plain values, which any process can take."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avgn.runtime.manifest import Item, Manifest

PARTS = "it has parts: items of several pictures are not localized offline"
NOTHING = "it has neither a frame with a sound nor a video file"


@dataclass(frozen=True, kw_only=True)
class Job:
    """How items are localized: the bundle and its engine, items per batch, and the folder that maps go to.

    `audio_track`: that of videos with several, as `open_media` takes it.
    """

    bundle: str
    backend: str = "auto"
    precision: str | None = None
    threads: int | None = None
    batch: int = 16
    maps: str | None = None
    audio_track: str | int | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One item to localize: a frame with its sound, or a video file; absolute paths."""

    id: str
    frame: str | None = None
    audio: str | None = None
    video_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item: its result row, or the reason why there is none."""

    id: str
    row: dict[str, Any] | None = None
    reason: str | None = None


def list_entries(manifest: Manifest) -> tuple[list[Entry], list[Outcome]]:
    """Return the items that can be localized, and those left out with the reason."""
    entries: list[Entry] = []
    left_out: list[Outcome] = []
    for item in manifest.items:
        found = _entry(item)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            left_out.append(Outcome(id=item.id, reason=found))
    return entries, left_out


def _entry(item: Item) -> Entry | str:
    if item.parts:
        return PARTS
    if item.frame is not None and item.audio is not None:
        return Entry(id=item.id, frame=_absolute(item.frame), audio=_absolute(item.audio))
    if item.video_file is not None:
        return Entry(id=item.id, video_file=_absolute(item.video_file))
    return NOTHING


def _absolute(path: Path) -> str:
    # a worker may run in another folder
    return os.path.abspath(path)


def cut(entries: Sequence[Entry], size: int) -> Iterator[list[Entry]]:
    """Chunks of at most `size` stills; a video is a chunk of its own."""
    chunk: list[Entry] = []
    for entry in entries:
        if entry.video_file is not None:
            yield [entry]
            continue
        chunk.append(entry)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
