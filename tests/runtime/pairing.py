"""A clip whose pictures and sound both say what time it is, and an engine that records which it gets together.

Every PERIOD seconds a beep sounds and the picture falls from bright to dark; in between it grows brighter evenly.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avgn.runtime import BundleInfo
from avgn.runtime.arrays import Floats, Pixels
from tests.runtime.clips import write_clip

PERIOD = 0.8
FPS = 30
RATE = 44_100
BEEP = 0.05
DARK, BRIGHT = 40.0, 220.0


def write_flash_and_beep(path: Path, seconds: float = 8.0, size: tuple[int, int] = (240, 320)) -> Path:
    """The clip: H.264 and AAC in MP4."""
    times = [index / FPS for index in range(round(seconds * FPS))]
    levels = [round(DARK + (BRIGHT - DARK) * (time % PERIOD) / PERIOD) for time in times]
    frames = [np.full((*size, 3), level, np.uint8) for level in levels]
    at = np.arange(round(seconds * RATE)) / RATE
    sound = 0.5 * np.sin(2 * np.pi * 1500 * at) * (at % PERIOD < BEEP)
    return write_clip(path, frames, times, sound[:, None].astype(np.float32), RATE, fps=FPS)


class RecordingEngine:
    """Reads the time since the flash off each picture and the time since the beep off its window."""

    name = "recording"

    def __init__(self, info: BundleInfo) -> None:
        self.info = info
        self.pairs: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def run_audio(self, waveform: Floats) -> dict[str, Floats]:
        count = len(self.info.classes)
        ages = np.array([self._age(one) for one in waveform], np.float32)
        sources = np.repeat(ages[:, None, None], count, axis=1)
        return {"sources": sources, "audio_prob": np.full((len(waveform), count), 0.9, np.float32)}

    def run_image(self, image: Pixels, sources: Floats) -> dict[str, Floats]:
        batch, count = sources.shape[:2]
        height, width = image.shape[1:3]
        middle = image[:, height // 4 : -height // 4, width // 4 : -width // 4].astype(np.float64)
        phases = PERIOD * (middle.mean(axis=(1, 2, 3)) - DARK) / (BRIGHT - DARK)
        with self._lock:
            self.pairs += [(float(p), float(a)) for p, a in zip(phases, sources[:, 0, 0], strict=True)]
        maps = np.zeros((batch, count, *self.info.grid), np.float32)
        return {"maps": maps, "visual_prob": np.zeros((batch, count), np.float32)}

    def lags(self) -> npt.NDArray[np.float64]:
        """Seconds by which each frame lies after its window's end, in -PERIOD / 2 .. PERIOD / 2; frames whose window
        holds no beep are left out.
        """
        pairs = np.array([pair for pair in self.pairs if np.isfinite(pair[1])], np.float64)
        lag = (pairs[:, 0] - pairs[:, 1] + PERIOD / 2) % PERIOD - PERIOD / 2
        # a frame at the very flash may be read as its end or its beginning
        return lag[(pairs[:, 0] > 0.03) & (pairs[:, 0] < PERIOD - 0.03)]

    def _age(self, waveform: Floats) -> float:
        """Seconds from the last beep's beginning to the window's end, NaN where none begins in it."""
        block = self.info.sample_rate // 500
        usable = len(waveform) // block * block
        loud = np.abs(waveform[len(waveform) - usable :]).reshape(-1, block).max(axis=1) > 0.1
        quiet = np.cumsum(np.r_[0, ~loud])
        for at in np.flatnonzero(loud)[::-1]:
            # 30 ms of quiet before it: a beginning
            if at >= 15 and quiet[at] - quiet[at - 15] == 15:
                return (usable - at * block) / self.info.sample_rate
        return float("nan")
