"""Reads frames and sounds of manifest items, the same way for training and evaluation.

Legend: H x W pixels, T samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import InputError

Array = NDArray[Any]


def read_frame(path: Path, size: tuple[int, int]) -> Array:
    """A frame as RGB uint8 [H, W, 3], squashed to `size`; raises InputError that names the file."""
    import cv2

    from avgn.runtime.image import resize

    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"frame {path} can't be read ({error}): mend or remove the item") from None
    if image is None:
        raise InputError(f"frame {path} is not an image that can be read: mend or remove the item")
    return np.asarray(resize(np.ascontiguousarray(image[..., ::-1]), size))


def read_clip(path: Path, rate: int, samples: int) -> Array:
    """A wav file as mono float32 [samples] at `rate`: short clips tiled, long ones centre-cropped."""
    from avgn.runtime.audio import fit_window, resample

    mono, own_rate = read_wav(path)
    return np.asarray(fit_window(resample(mono, own_rate, rate), samples), dtype=np.float32)


def read_wav(path: Path) -> tuple[Array, int]:
    """(mono float32 [T] in -1..1, rate) of a wav file; raises InputError that names the file."""
    from scipy.io import wavfile

    from avgn.runtime.audio import to_mono

    try:
        rate, samples = wavfile.read(path)
    except Exception as error:  # scipy lets struct, value and index errors out of broken files
        raise InputError(f"audio {path} can't be read ({error}): give a wav file") from None
    if samples.size == 0:
        raise InputError(f"audio {path} holds no samples: mend or remove the item")
    mono = to_mono(samples)
    if not np.isfinite(mono).all():
        raise InputError(f"audio {path} holds NaN or infinite samples: mend or remove the item")
    return mono, int(rate)
