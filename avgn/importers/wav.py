"""Reads the header of a wav file: how long it is and whether all of it is there, without reading its samples."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from avgn.runtime.audio_file import EXTENSIBLE, HEADER
from avgn.runtime.errors import InputError
from avgn.runtime.regular import open_regular
from avgn.runtime.tags import tags_length

# the size that writers to a pipe put when they don't know it yet
UNKNOWN_SIZE = 0xFFFF_FF00


@dataclass(frozen=True, kw_only=True)
class WavHeader:
    """Describes a wav file: `seconds` of sound in the file; `missing` bytes that the header promises beyond them.

    The samples are `size` bytes from `start` on, coded as `code` says with `bits` a sample.
    """

    rate: int
    channels: int
    seconds: float
    missing: int
    code: int
    bits: int
    start: int
    size: int


def read_header(path: Path) -> WavHeader:
    """Read the header of a RIFF file of any coding. Raises InputError for another file or one that can't be read."""
    try:
        with open_regular(path) as file:
            end = os.fstat(file.fileno()).st_size
            file.seek(tags_length(file))
            start = file.read(12)
            if start[:4] != b"RIFF" or start[8:] != b"WAVE":
                raise InputError(f"audio {path} is no wav file: convert it to 16-bit wav")
            form = b""
            while len(head := file.read(8)) == 8:
                name, size = head[:4], struct.unpack("<I", head[4:])[0]
                if name == b"data" and len(form) >= 16:
                    return _header(path, form, size, file.tell(), end - file.tell())
                if name == b"fmt ":
                    form = file.read(min(size, HEADER))
                    size = size - len(form) + size % 2
                else:
                    size += size % 2
                file.seek(size, 1)
    except OSError as error:
        raise InputError(f"audio {path} can't be read ({error.strerror}): mend or remove the item") from None
    raise InputError(f"audio {path} has no sound after its header: mend or remove the item")


def _header(path: Path, form: bytes, size: int, start: int, there: int) -> WavHeader:
    code, channels, rate, bytes_a_second, _, bits = struct.unpack_from("<HHIIHH", form)
    if code == EXTENSIBLE and len(form) >= 26:
        code = struct.unpack_from("<H", form, 24)[0]
    if not channels or not rate or not bytes_a_second:
        raise InputError(f"audio {path} has a header of zeros: mend or remove the item")
    promised = there if size >= UNKNOWN_SIZE else size
    return WavHeader(
        rate=rate,
        channels=channels,
        seconds=min(promised, there) / bytes_a_second,
        missing=max(0, promised - there),
        code=code,
        bits=bits,
        start=start,
        size=min(promised, there),
    )
