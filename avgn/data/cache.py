"""Keeps decoded sounds on disk: read, made mono and resampled once, then mapped into memory by every process.

Legend: T samples.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import InputError

FULL_SCALE = 32768


def to_int16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Convert to 16 bits, half the memory of float32; what exceeds full scale is clipped."""
    return np.clip(np.round(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def to_float32(quantised: NDArray[np.int16]) -> NDArray[np.float32]:
    """Convert to samples [T] in -1..1."""
    return quantised.astype(np.float32) / np.float32(FULL_SCALE)


class WaveformCache:
    """Keeps decoded sounds of one rate in a folder. Files are named after path, size and time of what they were made
    from, so that a changed sound is decoded again; several processes may share the folder.
    """

    def __init__(self, folder: Path, sample_rate: int) -> None:
        """Open the cache. Raises InputError if the folder can't be written."""
        self.folder = folder / str(sample_rate)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"audio cache {folder} can't be written ({error.strerror}): choose another one") from None

    def get(self, path: Path) -> NDArray[np.int16] | None:
        """Return the samples [T] of a sound file, None where it isn't kept yet."""
        kept = self._file(path)
        try:
            found: NDArray[np.int16] = np.load(kept, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return None
        return found

    def put(self, path: Path, quantised: NDArray[np.int16]) -> None:
        """Keep the samples [T] of a sound file."""
        kept = self._file(path)
        # tempfile's own files are closed to everybody else, whatever the umask
        partial = kept.with_name(f"{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as file:
                np.save(file, quantised)
            partial.replace(kept)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(
                f"audio cache {self.folder} can't be written ({error.strerror}): free space or choose another one"
            ) from None

    def _file(self, path: Path) -> Path:
        facts = path.stat()
        key = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
        return self.folder / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npy"
