"""Tells what is true in a video at each frame: what sounds, what is visible, and where.

F frames, K classes. Sources of one class are united. Times are seconds of the stream's clock.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avgn.runtime.arrays import Array
from avgn.runtime.errors import InputError
from avgn.runtime.limits import LARGEST_STILL
from avgn.runtime.manifest import Box, Item, Source
from avgn.runtime.regular import open_regular
from avgn.runtime.texts import plain


class VideoTruth:
    """Holds the truth of one item with a video file.

    A source without `intervals` sounds always or never, as its flag says; one without a `track` stays in its boxes.
    """

    def __init__(self, item: Item, classes: Sequence[str]) -> None:
        index = {name: k for k, name in enumerate(classes)}
        self.item = item
        self.labels = [index[source.label] for source in item.sources]
        self.num_classes = len(classes)
        self._masks = None if item.mask_video is None else read_mask_video(item.mask_video)

    def sounding(self, times: Array) -> Array:
        """Return [F, K] bool: some source of the class sounds at that time."""
        result = np.zeros((len(times), self.num_classes), dtype=bool)
        for k, source in zip(self.labels, self.item.sources, strict=True):
            result[:, k] |= _sounds(source, times)
        return result

    def present(self, times: Array, frames: Array) -> Array:
        """Return [F, K] bool: some source of the class sounds and is seen. frames: the frames' numbers from 0."""
        result = np.zeros((len(times), self.num_classes), dtype=bool)
        for k, source in zip(self.labels, self.item.sources, strict=True):
            result[:, k] |= _sounds(source, times) & _seen(source, frames)
        return result

    def changes(self, times: Array, frames: Array) -> Array:
        """Return the times at which the truth changes: ends of sounding intervals, and frames where a source comes or
        goes."""
        moments: list[float] = []
        for source in self.item.sources:
            moments += [moment for interval in source.intervals or () for moment in interval]
            seen = _seen(source, frames)
            moments += [float(t) for t in times[1:][seen[1:] != seen[:-1]]]
        return np.unique(np.array(moments, dtype=np.float64))

    def intervals(self, end: float) -> list[tuple[int, float, float]]:
        """Return (class, onset, release) of every sounding interval; sources that always sound last from 0 to `end`."""
        spans: list[tuple[int, float, float]] = []
        for k, source in zip(self.labels, self.item.sources, strict=True):
            if source.intervals is not None:
                spans += [(k, start, stop) for start, stop in source.intervals]
            elif source.sounding:
                spans.append((k, 0.0, end))
        return sorted(spans)

    def hits_box(self, label: int, time: float, frame: int, peak: tuple[float, float]) -> bool:
        """Return whether a peak (x, y normalised) lies in a box of a sounding visible source of that class."""
        boxes = [box for source in self._here(label, time, frame) for box in _boxes(source, frame)]
        return any(x1 <= peak[0] <= x2 and y1 <= peak[1] <= y2 for x1, y1, x2, y2 in boxes)

    def hits_mask(self, label: int, time: float, frame: int, peak: tuple[float, float]) -> bool | None:
        """Return the same inside the mask; None where no mask video says where that source is."""
        if self._masks is None or frame >= len(self._masks):
            return None
        height, width = self._masks.shape[1:]
        mask = self._masks[frame]
        value = mask[min(int(peak[1] * height), height - 1), min(int(peak[0] * width), width - 1)]
        here = self._here(label, time, frame)
        numbers = [n + 1 for n, source in enumerate(self.item.sources) if any(source is s for s in here)]
        if not any((mask == number).any() for number in numbers):
            return None
        return int(value) in numbers

    def _here(self, label: int, time: float, frame: int) -> list[Source]:
        when, number = np.array([time]), np.array([frame])
        return [
            source
            for k, source in zip(self.labels, self.item.sources, strict=True)
            if k == label and _sounds(source, when)[0] and _seen(source, number)[0]
        ]


def read_mask_video(path: Path) -> Array:
    """Read the array `index` [F, h, w] uint8 of a mask video. Raises InputError that names the file."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as packed:
            # a hundred bytes may claim to unpack to gigabytes
            size = packed.getinfo("index.npy").file_size
            if size > LARGEST_STILL:
                raise ValueError(f"its index has {size} bytes, at most {LARGEST_STILL} are read")
            with packed.open("index.npy") as member:
                index = np.lib.format.read_array(member, allow_pickle=False, max_header_size=10_000)
    except Exception as error:  # numpy lets zip, key, value and OS errors out of broken archives
        reason = plain(str(getattr(error, "strerror", None) or error))[:150]
        raise InputError(f"mask video {path} can't be read ({reason}): it must be an .npz with `index`") from None
    if index.ndim != 3 or index.dtype != np.uint8 or index.size == 0:
        raise InputError(f"mask video {path}: index must be [frames, h, w] uint8, got {index.dtype} {index.shape}")
    return np.asarray(index)


def _sounds(source: Source, times: Array) -> Array:
    if source.intervals is None:
        return np.full(len(times), source.sounding)
    return np.array([any(start <= t < end for start, end in source.intervals) for t in times], dtype=bool)


def _seen(source: Source, frames: Array) -> Array:
    if source.track is None:
        return np.full(len(frames), source.on_screen)
    return np.array([f < len(source.track) and source.track[f] is not None for f in frames], dtype=bool)


def _boxes(source: Source, frame: int) -> tuple[Box, ...]:
    if source.track is None:
        return source.boxes
    box = source.track[frame] if frame < len(source.track) else None
    return () if box is None else (box,)
