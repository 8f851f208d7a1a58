"""Reads still frames and sounds, the same way for training, evaluation and offline localization.

Legend: H x W pixels, T samples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.audio import fit_window, resample, resample_span, resampled_length
from avgn.runtime.audio_file import Decoded, Pcm, open_audio
from avgn.runtime.errors import InputError
from avgn.runtime.image import decode_still, resize
from avgn.runtime.limits import LARGEST_STILL
from avgn.runtime.regular import read_regular

# samples of a sound that are read at once
READ_THROUGH = 1 << 20


def read_still(kind: str, path: Path, flags: int | None = None) -> Pixels:
    """Return a picture's file as BGR uint8 [H, W, 3], or what OpenCV's `flags` ask for.

    Raises InputError that names the `kind` and the file.
    """
    try:
        image = decode_still(f"{kind} {path}", read_regular(path, LARGEST_STILL), flags)
    except OSError as error:
        raise InputError(f"{kind} {path} can't be read ({error.strerror}): mend or remove the item") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    if image is None:
        raise InputError(f"{kind} {path} is not an image that can be read: mend or remove the item")
    return image


def read_frame(path: Path, size: tuple[int, int]) -> Pixels:
    """Return a frame as RGB uint8 [H, W, 3], squashed to `size`; raises InputError that names the file."""
    image = read_still("frame", path)
    # channels are resized apart, so the small picture can be turned to RGB instead of the large one
    return np.ascontiguousarray(resize(image, size)[..., ::-1])


def read_clip(path: Path, rate: int, samples: int) -> Floats:
    """Return a sound file as mono float32 [samples] at `rate`: short clips tiled, long ones centre-cropped.

    Of a long file only what the window needs is kept and resampled.
    """
    with open_audio(path) as audio:
        whole = resampled_length(audio.length, audio.rate, rate)
        if whole <= samples:
            return fit_window(resample(audio.read(0, audio.length), audio.rate, rate), samples)
        return resample_span(audio.read, audio.length, audio.rate, rate, (whole - samples) // 2, samples)


def read_wav(path: Path) -> tuple[Floats, int]:
    """(mono float32 [T] in -1..1, rate) of a sound file; raises InputError that names the file."""
    with open_audio(path) as audio:
        return audio.read(0, audio.length), audio.rate


def read_through(path: Path) -> None:
    """Read a sound file to its end, a piece at a time; raises InputError that names it where it can't be used or is
    damaged, however little."""
    with open_audio(path) as audio:
        if isinstance(audio, Decoded) and audio.corrupt:
            raise InputError(
                f"audio {path} is damaged (pieces that can't be decoded: {audio.corrupt}): mend or remove the item"
            )
        # what is decoded was read to its end when it was opened
        length = audio.length if isinstance(audio, Pcm) else min(audio.length, READ_THROUGH)
        for first in range(0, length, READ_THROUGH):
            audio.read(first, min(first + READ_THROUGH, length))


def read_part(path: Path, seconds: float, place: Callable[[], float]) -> tuple[Floats, int]:
    """(mono float32 [T], rate) of at most `seconds` of a sound file; `place()` in 0..1 says where they lie in a longer
    one. Raises InputError that names the file.
    """
    with open_audio(path) as audio:
        length = min(audio.length, max(1, round(seconds * audio.rate)))
        first = round(place() * (audio.length - length)) if audio.length > length else 0
        return audio.read(first, first + length), audio.rate
