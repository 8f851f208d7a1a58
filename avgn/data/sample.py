"""Defines a training sample; no torch is needed to make one.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Holds image [H,W,3] uint8 and waveform [T] float32; indices of the classes that sound, that are visible, and
    both."""

    image: NDArray[np.uint8]
    waveform: NDArray[np.float32]
    sounding: tuple[int, ...]
    visible: tuple[int, ...]
    order: tuple[int, ...]
