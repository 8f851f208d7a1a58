"""Reads still frames and sounds, the same way for training, evaluation and offline localization.

Legend: H x W pixels, T samples.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.audio import fit_window, resample, to_mono
from avgn.runtime.av_features import import_av, open_input
from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2, resize
from avgn.runtime.media import audio_stream

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

# by format code and bits of a sample
SAMPLES: dict[tuple[int, int], np.dtype[Any]] = {
    (1, 8): np.dtype("u1"),
    (1, 16): np.dtype("<i2"),
    (1, 32): np.dtype("<i4"),
    (3, 32): np.dtype("<f4"),
    (3, 64): np.dtype("<f8"),
}
EXTENSIBLE = 0xFFFE


def read_frame(path: Path, size: tuple[int, int]) -> Pixels:
    """A frame as RGB uint8 [H, W, 3], squashed to `size`; raises InputError that names the file."""
    cv2 = import_cv2()
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"frame {path} can't be read ({error}): mend or remove the item") from None
    if image is None:
        raise InputError(f"frame {path} is not an image that can be read: mend or remove the item")
    return resize(np.ascontiguousarray(image[..., ::-1]), size)


def read_clip(path: Path, rate: int, samples: int) -> Floats:
    """A sound file as mono float32 [samples] at `rate`: short clips tiled, long ones centre-cropped."""
    mono, own_rate = read_wav(path)
    return fit_window(resample(mono, own_rate, rate), samples)


def read_wav(path: Path) -> tuple[Floats, int]:
    """(mono float32 [T] in -1..1, rate) of a sound file; raises InputError that names the file.

    Plain PCM is taken as it lies in the file, which is much faster than opening a decoder; the rest goes to PyAV.
    """
    try:
        found = _read_pcm(path.read_bytes())
    except OSError as error:
        raise InputError(f"audio {path} can't be read ({error.strerror}): give a wav file") from None
    samples, rate = found if found is not None else _decode(path)
    if samples.size == 0:
        raise InputError(f"audio {path} holds no samples: mend or remove the item")
    mono = to_mono(samples)
    if not np.isfinite(mono).all():
        raise InputError(f"audio {path} holds NaN or infinite samples: mend or remove the item")
    return mono, rate


def _read_pcm(data: bytes) -> tuple[npt.NDArray[Any], int] | None:
    """Samples [T, C] and rate of a wav file's bytes, or None where they are coded otherwise or the header is broken.

    A file that was cut off gives the samples that are there.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    position, header = 12, b""
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
        if name == b"fmt ":
            header = body
        elif name == b"data" and len(header) >= 16:
            code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", header)
            if code == EXTENSIBLE and len(header) >= 26:
                code = struct.unpack_from("<H", header, 24)[0]
            dtype = SAMPLES.get((code, bits))
            if dtype is None or not channels or not rate:
                return None
            whole = len(body) // (dtype.itemsize * channels) * channels
            return np.frombuffer(body, dtype, whole).reshape(-1, channels), rate
    return None


def _decode(path: Path) -> tuple[npt.NDArray[Any], int]:
    """All samples [T, C] of a file's first sound and their rate."""
    av = import_av()
    blocks: list[npt.NDArray[Any]] = []
    try:
        with open_input(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = audio_stream(container)
            if stream is None:
                raise ValueError("no sound in it")
            for frame in container.decode(stream):
                samples = frame.to_ndarray()
                blocks.append(samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels))
            rate = int(stream.codec_context.sample_rate)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"audio {path} can't be read ({reason}): give a wav file") from None
    return (np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)), rate
