"""What the tests of several streams on one engine share: sounds, pictures, and engines that are slow or held."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from avgn.runtime import Bundle, Localizer
from tests.runtime.graphs import RATE

SIZE = (96, 128)


def sound(seconds: float, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * (440.0, 1320.0, 3100.0)[seed % 3] * np.arange(int(seconds * RATE)) / RATE)
    return (0.3 * tone + 0.01 * rng.standard_normal(tone.size)).astype(np.float32)


def pictures(count: int, seed: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


def load_engine(bundle_path: Any) -> Any:
    """The bundle's engine, on one thread."""
    return Localizer.load(Bundle.load(bundle_path), threads=1).engine


class SlowEngine:
    """The real engine, on a machine that takes `seconds` for a batch of pictures."""

    name = "slow"

    def __init__(self, engine: Any, seconds: float) -> None:
        self.engine, self.seconds, self.info = engine, seconds, engine.info
        self.batches: list[int] = []

    def run_audio(self, waveform: Any) -> Any:
        return self.engine.run_audio(waveform)

    def run_image(self, image: Any, sources: Any) -> Any:
        self.batches.append(len(image))
        time.sleep(self.seconds)
        return self.engine.run_image(image, sources)


class Heard:
    """The real engine, on a machine that takes `seconds` for a batch of sounds; notes the batches, and their ends.

    `ends`: the windows' last samples, which tell their times where the sound is a ramp.
    """

    name = "heard"

    def __init__(self, engine: Any, seconds: float) -> None:
        self.engine, self.seconds, self.info = engine, seconds, engine.info
        self.batches: list[int] = []
        self.ends: list[float] = []
        self.go, self.entered = threading.Event(), threading.Event()
        self.hear = threading.Event()
        self.go.set()
        self.hear.set()

    def run_audio(self, waveform: Any) -> Any:
        self.batches.append(len(waveform))
        self.ends += [float(row[-1]) for row in waveform]
        time.sleep(self.seconds)
        assert self.hear.wait(60)
        return self.engine.run_audio(waveform)

    def run_image(self, image: Any, sources: Any) -> Any:
        self.entered.set()
        assert self.go.wait(60)
        return self.engine.run_image(image, sources)
