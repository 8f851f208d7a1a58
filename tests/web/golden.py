"""Numbers of the Python runtime that the runtime in TypeScript must give, too: written here, read by its own tests.

Inputs are made by the same few exact operations on both sides, so that the file holds outputs alone.

    python -m tests.web.golden          # writes runtime/web/client/tests/golden.json again
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.audio import Downmix, Resampler, loudness_db
from avgn.runtime.bundle import Bundle, BundleInfo
from avgn.runtime.bundle_schema import Joint, Patches
from avgn.runtime.clock import AudioClock
from avgn.runtime.decision import DecisionConfig, DecisionState, Rules, step
from avgn.runtime.image import resize
from avgn.runtime.patches import pool_patches
from avgn.runtime.regions import peak_of, region_box
from avgn.runtime.result import Result
from avgn.runtime.sinks.drawing import color_of
from avgn.runtime.sources.drift import CaptureClock
from avgn.runtime.stream import StreamLocalizer

FILE = Path(__file__).parents[2] / "runtime" / "web" / "client" / "tests" / "golden.json"
RATES = ((48000, 16000), (44100, 16000), (48000, 22050), (44100, 22050), (8000, 16000), (16000, 16000), (44101, 16000))
# (H, W) of a picture, and of what it becomes
SIZES = (
    ((48, 64), (16, 16)),
    ((48, 64), (24, 32)),
    ((48, 64), (16, 32)),
    ((37, 53), (16, 12)),
    ((7, 9), (16, 12)),
    ((7, 40), (16, 12)),
    ((16, 12), (16, 12)),
    ((17, 13), (16, 12)),
)
GRID = (5, 4)
CLASSES = ("bell", "drum", "dog", "speech", "engine", "bird")
FRAMES = 60
KEPT = 48
# of 128 samples, of sound in several channels
BLOCKS = 160
MIXES = ("alike", "apart", "inverted", "nearly", "from the middle on", "after silence", "one of six")


def noise(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Return `count` values in -1..1 of a linear congruence, exact in float32."""
    values = np.empty(count)
    state = seed
    for at in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values[at] = (state >> 16) / 32768 - 1
    return values


def walk(seed: int, frames: int, count: int, pace: float) -> Floats:
    """Return `frames` rows of `count` values that wander between 0.001 and 0.999."""
    steps = noise(seed, frames * count).reshape(frames, count)
    value = np.full(count, 0.5)
    rows = []
    for row in steps:
        value = np.minimum(0.999, np.maximum(0.001, value + pace * row))
        rows.append(value)
    return np.asarray(rows, np.float32)


def picture(seed: int, height: int, width: int) -> Pixels:
    return np.asarray((noise(seed, height * width * 3) + 1) * 127.5, np.uint8).reshape(height, width, 3)


def resampled() -> Iterator[dict[str, Any]]:
    samples = noise(1, 6000).astype(np.float32)
    for rate_in, rate_out in RATES:
        resampler = Resampler(rate_in, rate_out)
        out = np.concatenate([resampler.push(samples), resampler.flush()])
        places = np.linspace(0, len(out) - 1, KEPT).astype(int)
        yield {
            "rates": [rate_in, rate_out],
            "length": len(out),
            "places": places.tolist(),
            "values": out[places].tolist(),
        }


def channels(name: str) -> Floats:
    """Sound of several channels [T, C] in blocks of 128, as browsers hand it to a page."""
    first, second = (noise(seed, 128 * BLOCKS).astype(np.float32) for seed in (80, 81))
    half = len(first) // 2
    late = np.where(np.arange(len(first)) < half, first, -first)
    silent = np.where(np.arange(len(first)) < 6000, np.float32(0), first)
    found: dict[str, tuple[npt.NDArray[Any], ...]] = {
        "alike": (first, first / 2),
        "apart": (first, second),
        "inverted": (first, -first),
        "nearly": (first, -first + second / 8),
        "from the middle on": (first, late),
        "after silence": (silent, -silent),
        "one of six": (second, first, first / 4, -first, -second, second / 2),
    }
    return np.stack(found[name], axis=1).astype(np.float32)


def mixed() -> Iterator[dict[str, Any]]:
    for name in MIXES:
        sound = channels(name)
        downmix = Downmix()
        out = np.concatenate([downmix.push(sound[at : at + 128]) for at in range(0, len(sound), 128)])
        places = np.linspace(0, len(out) - 1, KEPT).astype(int)
        yield {"name": name, "length": len(out), "places": places.tolist(), "values": out[places].tolist()}


def windows() -> Iterator[dict[str, Any]]:
    """A clock that gets pieces, a gap, pieces that are there already and another rate."""
    clock = AudioClock(16000)
    samples = noise(2, 48000).astype(np.float32)
    samples[100] = np.nan
    pushed = [(0.02, 48000, 0, 4800), (0.12, 48000, 4800, 9600), (0.5, 48000, 9600, 19200), (0.65, 48000, 19200, 28800)]
    for at, rate, low, high in [*pushed, (0.9, 44100, 28800, 40000), (60.0, 44100, 40000, 48000)]:
        clock.push(samples[low:high], rate, at)
        for start in (clock.end - 3000, clock.end - 1200):
            window = clock.window(start, 1000)
            yield {
                "push": [at, rate, low, high],
                "end": clock.end,
                "start": start,
                "values": window[::25].tolist(),
                "loudness_db": loudness_db(window),
            }


def pictures() -> Iterator[dict[str, Any]]:
    for seed, (size, target) in enumerate(SIZES):
        out = resize(picture(seed + 10, *size), target)
        yield {"from": size, "to": target, "bytes": base64.b64encode(out.tobytes()).decode()}


def maps(seed: int, count: int) -> Floats:
    """Maps [count, h, w] with a hill each."""
    found = np.asarray(noise(seed, count * GRID[0] * GRID[1]) * 0.25, np.float32).reshape(count, *GRID)
    for k in range(count):
        found[k, k % GRID[0], (k + seed) % GRID[1]] += np.float32(1)
    return found


def regions() -> Iterator[dict[str, Any]]:
    for seed in range(20, 32):
        heat = maps(seed, 1)[0]
        yield {"seed": seed, "peak": peak_of(heat), "box": region_box(heat, 0.5)}
    yield {
        "seed": None,
        "peak": peak_of(np.zeros(GRID, np.float32)),
        "box": region_box(np.zeros(GRID, np.float32), 0.5),
    }


def rules() -> dict[str, Rules]:
    count = len(CLASSES)
    plain = Rules(
        config=DecisionConfig(),
        classes=CLASSES,
        audio_thresholds=np.linspace(0.3, 0.7, count).astype(np.float32),
        visual_thresholds=np.linspace(0.6, 0.4, count).astype(np.float32),
        has_presence=True,
    )
    joint = Joint(
        visual_weight=0.3,
        thresholds=tuple(np.linspace(-0.5, 0.5, count).tolist()),
        margin=5.0,
        apart=0.11,
        floor=-6.0,
        scale=0.75,
        seen_floor=-2.5,
    )
    return {
        "plain": plain,
        "slow": replace(plain, config=DecisionConfig(min_on=0.12, min_off=0.4, release=0.5, off_screen_seconds=0.2)),
        "maps": replace(plain, has_presence=False, visual_thresholds=np.linspace(1.0, -0.1, count).astype(np.float32)),
        "joint": replace(plain, joint=joint),
    }


def decisions() -> Iterator[dict[str, Any]]:
    for name, rule in rules().items():
        count = len(rule.classes)
        heard, seen = walk(40, FRAMES, count, 0.2), walk(41, FRAMES, count, 0.2)
        loud = walk(42, FRAMES, 1, 0.3)
        lines = []
        state = DecisionState.start(count)
        for frame in range(FRAMES):
            time, level = frame * 0.04, float(loud[frame, 0]) * 90 - 85
            heat = maps(50 + frame // 6, count)
            state, said = step(
                rule,
                state,
                time=time,
                audio_prob=heard[frame],
                visual_prob=seen[frame],
                maps=heat,
                loudness_db=level,
            )
            result = Result(
                time=time,
                frame=frame,
                state=said.state,
                sources=said.sources,
                audio_prob=heard[frame],
                visual_prob=seen[frame],
                maps=heat,
                loudness_db=level,
                window=0,
                ms={},
            )
            line = result.to_json()
            # values alone, in the order of the line's keys
            lines.append([line["state"], [list(source.values()) for source in line["sources"]]])
        yield {"rules": name, "lines": lines}


def grid_of_hops() -> list[list[float]]:
    """[time, window in mode "live", window in mode "file"] of the shipped bundle."""
    info = Bundle.load("world").info

    class Nothing:
        def __init__(self, info: BundleInfo) -> None:
            self.info = info

    live, file = (StreamLocalizer(Nothing(info), mode=mode) for mode in ("live", "file"))  # type: ignore[arg-type]
    times = [*(round(n / 25, 6) for n in range(0, 60, 7)), 0.2, 0.6, 1.4, 2.9999999, 3.0, 3.0000001, 1234.56]
    return [[time, live.window_of(time), file.window_of(time)] for time in times]


def pooled() -> dict[str, Any]:
    info = replace(Bundle.load("world").info, patches=Patches(samples=15600, loudest=3))
    odds = np.asarray(noise(60, 11 * 6) * 6, np.float32).reshape(1, 11, 6, 1)
    found = pool_patches(info, odds)
    return {name: value.ravel().tolist() for name, value in found.items()}


def captured() -> list[float]:
    clock = CaptureClock(48000)
    jitter = noise(70, 60) * 0.02
    return [clock.block(1920, n * 0.04 + float(jitter[n]) + (0 if n < 40 else 1.5)) for n in range(60)]


def golden() -> dict[str, Any]:
    """Return all of it as JSON holds it."""
    found = {
        "resampled": list(resampled()),
        "mixed": list(mixed()),
        "windows": list(windows()),
        "pictures": list(pictures()),
        "regions": list(regions()),
        "decisions": list(decisions()),
        "windows_of": grid_of_hops(),
        "pooled": pooled(),
        "captured": captured(),
        "colors": ["#{:02x}{:02x}{:02x}".format(*color_of(index)) for index in range(70)],
    }
    whole: dict[str, Any] = json.loads(json.dumps(found))
    return whole


if __name__ == "__main__":
    FILE.write_text(json.dumps(golden(), separators=(",", ":")) + "\n", encoding="utf-8")
