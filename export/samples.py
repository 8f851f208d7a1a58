"""Samples for calibration, and those kept apart for the accuracy guard.

Legend: N samples, T samples of a window, H x W pixels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation.inference import batches, check_classes
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest

BATCH = 4


@dataclass(frozen=True, kw_only=True)
class InputBatch:
    """Holds the inputs of both halves for the same items: waveform [B,T] float32 and image [B,H,W,3] uint8."""

    waveform: NDArray[np.float32]
    image: NDArray[np.uint8]


def split_manifest(calibration: Manifest, guard: Manifest | None, count: int) -> tuple[Manifest, Manifest]:
    """(the first `count` items for calibration, the items that guard the accuracy).

    Without a guard manifest, the guard is what calibration leaves, of other videos. Raises InputError when either is
    empty or both share items.
    """
    if count < 1:
        raise InputError(f"--samples must be at least 1, got {count}: 64 is the default")
    usable = [item for item in calibration.items if item.frame is not None and item.audio is not None]
    if not usable:
        raise InputError(f"calibration manifest {calibration.path} holds no item with a frame and a sound: add some")
    chosen = tuple(usable[:count])
    videos = {item.video or item.id for item in chosen}
    if guard is None:
        rest = tuple(item for item in usable[count:] if (item.video or item.id) not in videos and _has_truth(item))
        if not rest:
            raise InputError(
                f"calibration manifest {calibration.path} leaves no annotated item beyond its first {len(chosen)} to "
                "guard the accuracy with: pass --guard MANIFEST or a smaller --samples"
            )
        return replace(calibration, items=chosen), replace(calibration, items=rest)
    shared = _files(chosen) & _files(guard.items)
    if shared:
        raise InputError(
            f"calibration manifest {calibration.path} and guard manifest {guard.path} share {len(shared)} items (for "
            f"example {min(shared)}): use disjoint ones"
        )
    if not any(_has_truth(item) for item in guard.items):
        raise InputError(f"guard manifest {guard.path} holds no item with boxes or masks: use an annotated one")
    return replace(calibration, items=chosen), guard


def read_batches(info: BundleInfo, manifest: Manifest) -> list[InputBatch]:
    """Return all items of a manifest as batches for a model. Raises InputError for other classes or unreadable
    files."""
    check_classes(info, manifest)
    return [
        InputBatch(waveform=np.stack(waveforms).astype(np.float32), image=np.stack(images))
        for _, waveforms, images in batches(info, manifest.items, BATCH, False, Counter())
    ]


def _has_truth(item: Item) -> bool:
    return any(source.boxes or source.mask for source in item.sources)


def _files(items: tuple[Item, ...]) -> set[str]:
    return {str(item.frame.resolve()) for item in items if item.frame is not None}
