"""Sound files as mono samples of any span, without keeping the rest of a long one.

T samples, C channels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.audio import Downmix, to_float
from avgn.runtime.av_features import import_av
from avgn.runtime.container import decode_frames, open_file
from avgn.runtime.errors import InputError
from avgn.runtime.limits import check_audio
from avgn.runtime.memory import refuse_shortage
from avgn.runtime.regular import open_regular
from avgn.runtime.tags import tags_length
from avgn.runtime.tracks import audio_stream, decodable

# by format code and bits of a sample
SAMPLES: dict[tuple[int, int], np.dtype[Any]] = {
    (1, 8): np.dtype("u1"),
    (1, 16): np.dtype("<i2"),
    (1, 32): np.dtype("<i4"),
    (3, 32): np.dtype("<f4"),
    (3, 64): np.dtype("<f8"),
}
EXTENSIBLE = 0xFFFE
# bytes of a format header that mean something
HEADER = 40
# samples that are converted at once
PIECE = 2**18
# samples of decoded sound that are kept; a longer file is decoded again for the span that is asked for
KEPT = 2**23


class Audio(Protocol):
    """An opened sound file of `length` samples at `rate` Hz."""

    rate: int
    length: int

    def read(self, first: int, end: int) -> Floats:
        """Return the mono samples [first, end) as [end - first] float32. Raises InputError where they are not
        finite."""
        ...


@contextmanager
def open_audio(path: Path) -> Iterator[Audio]:
    """Open a sound file; raises InputError that names it when it can't be used.

    Plain PCM is taken as it lies in the file, which is much faster than opening a decoder; the rest goes to PyAV.
    """
    try:
        with open_regular(path) as file:
            audio: Audio = find_pcm(path, file) or Decoded(path)
            if audio.length == 0:
                raise InputError(f"audio {path} holds no samples: mend or remove the item")
            yield audio
    except OSError as error:
        raise InputError(f"audio {path} can't be read ({error.strerror}): give a wav file") from None


@dataclass(kw_only=True)
class Pcm:
    """The samples of an opened wav file from byte `start` on."""

    path: Path
    file: BinaryIO
    dtype: np.dtype[Any]
    channels: int
    rate: int
    start: int
    length: int

    def read(self, first: int, end: int) -> Floats:
        size = self.dtype.itemsize * self.channels
        self.file.seek(self.start + first * size)
        mono = Mono(self.path)
        for at in range(first, end, PIECE):
            data = self.file.read(min(PIECE, end - at) * size)
            mono.add(np.frombuffer(data, self.dtype).reshape(-1, self.channels))
        return mono.finish()


class Decoded:
    """The samples of a file's sound track, decoded by PyAV. Those of a short one are kept.

    Damaged pieces are passed over, as in videos; `corrupt` counts them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.corrupt = 0
        self.length = 0
        self.rate = 0
        self._mono: Floats | None = None
        mono = Mono(path)
        for samples, rate in self._blocks(self._count):
            self.rate = self.rate or rate
            self.length += len(samples)
            if self.length <= KEPT:
                mono.add(samples)
        if self.corrupt and not self.length:
            raise InputError(f"audio {path} can't be read (all of its pieces are damaged): give a wav file")
        if self.length <= KEPT:
            self._mono = mono.finish()

    def read(self, first: int, end: int) -> Floats:
        if self._mono is not None:
            return self._mono[first:end]
        mono, at = Mono(self.path), 0
        for samples, _ in self._blocks(lambda: None):
            mono.add(samples[max(0, first - at) : max(0, end - at)])
            at += len(samples)
            if at >= end:
                break
        return mono.finish()

    def _open(self) -> Any:
        return open_file(self.path)

    def _count(self) -> None:
        self.corrupt += 1

    def _blocks(self, count: Callable[[], None]) -> Iterator[tuple[npt.NDArray[Any], int]]:
        """Yield samples [T, C] and rate of the track's pieces; it ends where either changes its kind.

        `count` is called for every damaged piece.
        """
        av = import_av()
        kind: tuple[int, int] | None = None
        try:
            for frame in decode_frames(self._open, _track, count):
                found = (int(frame.sample_rate), int(frame.layout.nb_channels))
                if kind is None:
                    check_audio(f"audio {self.path}", *found)
                kind = kind or found
                if found != kind:
                    return
                samples = frame.to_ndarray()
                yield (samples.T if frame.format.is_planar else samples.reshape(-1, found[1])), found[0]
        except InputError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            refuse_shortage(error)
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise InputError(f"audio {self.path} can't be read ({reason}): give a wav file") from None


def _track(container: Any) -> Any:
    stream = audio_stream(container)
    if stream is None:
        raise ValueError("no sound in it")
    if not decodable(stream):
        raise ValueError("FFmpeg can't decode its format here")
    return stream


class Mono:
    """Collects samples [T, C] as mono."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._downmix = Downmix()
        self._parts: list[Floats] = [np.zeros(0, np.float32)]

    def add(self, samples: npt.NDArray[Any]) -> None:
        self._parts.append(self._downmix.push(to_float(samples)))

    def finish(self) -> Floats:
        """Return all of them [T]; raises InputError where they are not finite."""
        mono = np.concatenate([*self._parts, self._downmix.flush()])
        if not np.isfinite(mono).all():
            raise InputError(f"audio {self._path} holds NaN or infinite samples: mend or remove the item")
        return mono


def find_pcm(path: Path, file: BinaryIO) -> Pcm | None:
    """Return the samples of a wav file, or None where they are coded otherwise or the header is broken.

    A file that was cut off has the samples that are there.
    """
    end = os.fstat(file.fileno()).st_size
    file.seek(tags_length(file))
    start = file.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        return None
    header = b""
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        here = file.tell()
        if name == b"data" and len(header) >= 16:
            # whoever wrote it into a pipe could not go back to say the length
            size = size or end - here
            return _pcm(path, file, header, here, min(size, end - here))
        if name == b"fmt ":
            header = file.read(min(size, HEADER))
        file.seek(here + size + size % 2)
    return None


def _pcm(path: Path, file: BinaryIO, header: bytes, start: int, size: int) -> Pcm | None:
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", header)
    if code == EXTENSIBLE and len(header) >= 26:
        code = struct.unpack_from("<H", header, 24)[0]
    dtype = SAMPLES.get((code, bits))
    if dtype is None or not channels or not rate:
        return None
    check_audio(f"audio {path}", rate, channels)
    length = size // (dtype.itemsize * channels)
    return Pcm(path=path, file=file, dtype=dtype, channels=channels, rate=rate, start=start, length=length)
