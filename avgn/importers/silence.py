"""Finds silent sounds whose labels say that something sounds: training on muted clips teaches a model nonsense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from avgn.importers.report import Report
from avgn.importers.wav import WavHeader, read_header
from avgn.runtime.audio_file import SAMPLES
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item
from avgn.runtime.reading import read_wav
from avgn.runtime.regular import open_regular

MUTED = "silent under a sounding label"
MUTED_VIDEO = "videos that are silent under a sounding label"
# -60 dBFS: below it the decision layer ignores the sound
QUIET_AMPLITUDE = 0.001
# this many places of a file are enough to tell nearly every sound from silence
NUM_PLACES = 16
PLACE_BYTES = 4096
# how many bytes are read at a time
PIECE_BYTES = 1 << 20


def note_muted(items: Iterable[Item], jobs: int, report: Report) -> None:
    """Note the items that are labelled as sounding and whose sound never rises above -60 dBFS.

    A video whose items are all muted is noted once.
    """
    listed = list(items)
    wanted = {item.id: _sounding_files(item) for item in listed}
    files = list(dict.fromkeys(path for paths in wanted.values() for path in paths))
    with ThreadPoolExecutor(jobs) as pool:
        silent = {path for path, found in zip(files, pool.map(is_silent, files), strict=True) if found}
    muted = [item for item in listed if silent.intersection(wanted[item.id])]
    whole, partly = Counter(item.video for item in listed), Counter(item.video for item in muted)
    for item in muted:
        if 1 < whole[item.video] == partly[item.video]:
            if item.video not in report.problems.get(MUTED_VIDEO, ()):
                report.problem(MUTED_VIDEO, item.video)
        else:
            report.problem(MUTED, item.id)


def is_silent(path: Path) -> bool:
    """Return whether a sound file never rises above -60 dBFS; False if it can't be read, which is reported
    elsewhere."""
    try:
        header = read_header(path)
        if (header.code, header.bits) in SAMPLES:
            return _is_quiet_pcm(path, header)
        return float(np.abs(read_wav(path)[0]).max()) < QUIET_AMPLITUDE
    except (OSError, InputError):
        return False


def _sounding_files(item: Item) -> list[Path]:
    if item.parts:
        return [item.sounds[source.part] for source in item.sources if source.sounding and source.part is not None]
    return list(item.sounds) if any(source.sounding for source in item.sources) else []


def _is_quiet_pcm(path: Path, header: WavHeader) -> bool:
    frame = SAMPLES[header.code, header.bits].itemsize * header.channels
    length = max(1, PLACE_BYTES // frame) * frame
    last = max(0, header.size - length) // frame * frame
    with open_regular(path) as file:
        for look in range(NUM_PLACES):
            file.seek(header.start + look * last // (NUM_PLACES - 1) // frame * frame)
            if _peak(file.read(min(length, header.size)), header) >= QUIET_AMPLITUDE:
                return False
        file.seek(header.start)
        left = header.size
        while left > 0 and (data := file.read(min(left, PIECE_BYTES // frame * frame))):
            # written so that NaN counts as loud
            if not _peak(data, header) < QUIET_AMPLITUDE:
                return False
            left -= len(data)
        return True


def _peak(data: bytes, header: WavHeader) -> float:
    """Return the largest magnitude of the samples, relative to full scale."""
    kind = SAMPLES[header.code, header.bits]
    samples = np.frombuffer(data, kind, len(data) // kind.itemsize).astype(np.float64)
    if not samples.size:
        return 0.0
    if kind.kind == "u":
        samples -= 128
    full = 1.0 if kind.kind == "f" else float(2 ** (header.bits - 1))
    return float(np.abs(samples).max()) / full
