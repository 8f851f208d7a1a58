"""Sizes and sounds that the tests of shards share."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

COUNT = 30


def wav(samples: NDArray[np.int16], rate: int = 22_050, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()
