"""What files, streams and devices give: pictures and pieces of sound with their times."""

from __future__ import annotations

from dataclasses import dataclass

from avgn.runtime.arrays import Floats, Pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoFrame:
    """An upright picture [H, W, 3] uint8 RGB at `time` seconds; `ms` it took to decode.

    `captured` is the monotonic moment at which a live picture came, None in files.
    """

    rgb: Pixels
    time: float
    ms: float = 0.0
    captured: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioBlock:
    """Sound [T, C] float32 whose first sample is at `time` seconds."""

    samples: Floats
    rate: int
    time: float


@dataclass(frozen=True, kw_only=True)
class AudioEnd:
    """No more sound comes."""


Event = VideoFrame | AudioBlock | AudioEnd
