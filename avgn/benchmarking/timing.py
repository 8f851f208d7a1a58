"""Measures times and memory of one engine at one batch size.

Legend: B batch, T samples of a window, H x W pixels.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.benchmarking.loading import load
from avgn.machine import peak_mb, resident_mb
from avgn.runtime.bundle import BundleInfo

WARM_UP_RUNS = 3
WARM_UP_SECONDS = 0.1
LEAST_RUNS = 5


def measure_row(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one round of a row: "load_ms", "first_run_ms", "repeats", "wall_ms" and "cpu_ms" per half, memory in MB.

    A run is a pair: the audio half, then the image half, on `job["batch"]` samples. "repeats" pairs are timed, or
    (None) as many as fit into "seconds". "memory_mb" holds the resident memory "before" anything was loaded and
    the "peak" of the process, which includes it.
    """
    before = resident_mb()
    begin = time.perf_counter()
    engine = load(job)
    loaded = time.perf_counter()
    waveform, image = make_inputs(engine.info, job["batch"])
    start = time.perf_counter()
    engine.run_image(image, engine.run_audio(waveform)["sources"])
    first = time.perf_counter()
    runs = 0
    while runs < WARM_UP_RUNS or time.perf_counter() - first < WARM_UP_SECONDS:
        engine.run_image(image, engine.run_audio(waveform)["sources"])
        runs += 1
    samples = _timed(engine, waveform, image, job["seconds"], job["repeats"])
    wall, cpu = 1e3 * samples[:, :2], 1e3 * samples[:, 2:]
    return {
        "load_ms": 1e3 * (loaded - begin),
        "first_run_ms": 1e3 * (first - start),
        "repeats": len(samples),
        "wall_ms": {name: _spread(values) for name, values in _halves(wall).items()},
        "cpu_ms": {name: float(values.mean()) for name, values in _halves(cpu).items()},
        "throughput": float(1e3 * job["batch"] * len(wall) / wall.sum()),
        "memory_mb": {"before": before, "peak": peak_mb()},
    }


def make_inputs(info: BundleInfo, batch: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make noise [B,T] float32 and [B,H,W,3] uint8: the time of the halves doesn't depend on what they hear and
    see."""
    random = np.random.default_rng(0)
    waveform = 0.1 * random.standard_normal((batch, info.window_samples), np.float32)
    return waveform, random.integers(0, 256, (batch, *info.image_size, 3), np.uint8)


def _timed(engine: Any, waveform: Any, image: Any, seconds: float, repeats: int | None) -> NDArray[np.float64]:
    """Time the halves: wall and CPU seconds [runs, (audio, image, audio CPU, image CPU)]."""
    rows: list[tuple[float, float, float, float]] = []
    begin = time.perf_counter()
    while len(rows) < (repeats or LEAST_RUNS) or (repeats is None and time.perf_counter() - begin < seconds):
        cpu_0, wall_0 = time.process_time(), time.perf_counter()
        sources = engine.run_audio(waveform)["sources"]
        wall_1, cpu_1 = time.perf_counter(), time.process_time()
        engine.run_image(image, sources)
        wall_2, cpu_2 = time.perf_counter(), time.process_time()
        rows.append((wall_1 - wall_0, wall_2 - wall_1, cpu_1 - cpu_0, cpu_2 - cpu_1))
    return np.array(rows)


def _halves(values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"audio": values[:, 0], "image": values[:, 1], "pair": values.sum(axis=1)}


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"p{at}": float(np.percentile(values, at)) for at in (50, 95)}
