"""Windows that are heard in patches: a hop of the stream computes the new patch, and remembers the others.

Shapes: B windows, T samples of a window, N patches of S samples, K classes. Patches are one audio hop apart, and the
last one ends where the window does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle_schema import BundleInfo


def cut_patches(info: BundleInfo, waveform: Floats) -> Floats:
    """Windows [B, T] -> their patches [B, N, S], a view of them."""
    assert info.patches is not None
    every = np.lib.stride_tricks.sliding_window_view(waveform, info.patches.samples, axis=1)
    return every[:, :: info.hop_samples]


def pool_patches(info: BundleInfo, logits: Floats) -> dict[str, Floats]:
    """Log-odds of patches [B, N, K, 1] -> "sources" [B, K, 1] and "audio_prob" [B, K]: the mean of the loudest."""
    assert info.patches is not None
    loudest = min(info.patches.loudest, logits.shape[1])
    pooled = np.sort(logits, axis=1)[:, -loudest:].mean(axis=1, dtype=np.float32)
    # exponentials of large numbers are not needed: beyond them a probability is 0 or 1
    prob = 1 / (1 + np.exp(-np.clip(pooled[:, :, 0], -80, 80)))
    return {"sources": pooled, "audio_prob": prob.astype(np.float32)}


@dataclass(kw_only=True)
class PatchMemory:
    """The log-odds [K, 1] of the patches that one stream has heard, by the hop at which each ends."""

    known: dict[int, Floats] = field(default_factory=dict)

    def forget(self, before: int) -> None:
        """Let go of patches that end before a hop."""
        for end in [end for end in self.known if end < before]:
            del self.known[end]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The samples [T] of window `index` of a stream, and the last hop up to which its sound is complete."""

    index: int
    waveform: Floats
    complete: int
    memory: PatchMemory


def hear(engine: Any, windows: Sequence[Window]) -> dict[str, Floats]:
    """The audio half of an engine for the windows of one or several streams: what `run_audio` gives for all of them.

    Where the bundle hears in patches, only those that a stream does not remember are computed, all in one batch.
    """
    info: BundleInfo = engine.info
    run_patches = getattr(engine, "run_patches", None)
    if info.patches is None or run_patches is None:
        found: dict[str, Floats] = engine.run_audio(np.stack([window.waveform for window in windows]))
        return found
    new: list[Floats] = []
    places: list[list[Floats | int]] = []
    for window in windows:
        patches = cut_patches(info, window.waveform[None])[0]
        first = window.index - len(patches) + 1
        window.memory.forget(first)
        row: list[Floats | int] = []
        for at, patch in enumerate(patches):
            known = window.memory.known.get(first + at)
            row.append(len(new) if known is None else known)
            if known is None:
                new.append(patch)
        places.append(row)
    fresh = run_patches(np.ascontiguousarray(np.stack(new))) if new else None
    rows = []
    for window, row in zip(windows, places, strict=True):
        first = window.index - len(row) + 1
        for at, place in enumerate(row):
            if isinstance(place, int):
                assert fresh is not None
                row[at] = fresh[place]
                if first + at <= window.complete:
                    window.memory.known[first + at] = fresh[place]
        rows.append(np.stack([np.asarray(each) for each in row]))
    return pool_patches(info, np.stack(rows))
