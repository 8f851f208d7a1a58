"""Makes mixtures on the fly: pictures of several scenes side by side, their sounds summed.

Legend: H x W pixels, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avgn.data.sample import Sample

Level = Literal["plain", "rms"]

# the RMS to which "rms" brings every sound: -20 dB of full scale
TARGET_RMS = 0.1
FAINT_RMS = 1e-4


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Says how scenes are mixed."""

    mixture: tuple[int, int] = (1, 1)
    """(least, most) scenes that are shown side by side and heard together, the same number throughout a batch."""
    mix_level: Level = "plain"
    """plain sums sounds as they are, rms brings each to the same loudness first."""
    silent: float = 0.0
    """Chance that an image beyond the first is mute."""
    off_screen: float = 0.0
    """Chance that one more sound is heard, whose image isn't shown."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixture", tuple(self.mixture))
        least, most = self.mixture
        if not 1 <= least <= most <= 8:
            raise ValueError(f"mixture must be (least, most) within 1..8, got {self.mixture}: for example (1, 2)")
        if self.mix_level not in get_args(Level):
            raise ValueError(
                f"mix_level must be one of {', '.join(get_args(Level))}, got {self.mix_level!r}: choose one"
            )
        for name in ("silent", "off_screen"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}: 0 switches it off")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Holds one scene of a mixture: image [H,W,3], waveform [T], and the classes that sound and that are visible."""

    image: NDArray[np.uint8]
    waveform: NDArray[np.float32]
    sounding: frozenset[int]
    visible: frozenset[int]


def to_level(waveform: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    """Bring a waveform [T] to the loudness with which it is summed; silence stays silence."""
    if level == "plain":
        return waveform
    rms = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if waveform.size else 0.0
    return waveform if rms < FAINT_RMS else waveform * np.float32(TARGET_RMS / rms)


def mix(shown: list[Scene], heard: list[bool], unseen: Scene | None, order: np.random.Generator | None) -> Sample:
    """Join the pictures of `shown` from left to right, and sum the sounds of those that are `heard` and of `unseen`.

    Sums are plain float sums without clipping. `order` shuffles the sources (sorted by class otherwise).
    """
    waveforms = [scene.waveform for scene, loud in zip(shown, heard, strict=True) if loud]
    sounding: set[int] = set().union(*(scene.sounding for scene, loud in zip(shown, heard, strict=True) if loud))
    visible: set[int] = set().union(*(scene.visible for scene in shown))
    if unseen is not None:
        waveforms.append(unseen.waveform)
        sounding |= unseen.sounding
    sources = sorted(sounding & visible)
    if order is not None:
        sources = [sources[k] for k in order.permutation(len(sources))]
    return Sample(
        image=shown[0].image if len(shown) == 1 else np.concatenate([scene.image for scene in shown], axis=1),
        waveform=np.sum(waveforms, axis=0, dtype=np.float32) if waveforms else np.zeros_like(shown[0].waveform),
        sounding=tuple(sorted(sounding)),
        visible=tuple(sorted(visible)),
        order=tuple(sources),
    )
