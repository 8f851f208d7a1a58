"""Measures what the bundle of real things reaches on given scenes and clips: accuracy, silence, faces, speed.

python -m benchmarks.world --bundle runs/world/bundle --scenes MANIFEST [MANIFEST ...] [--talking CLIP
    [--faces FACES]] [--sheet PNG] [--beside runs/published/bundle] --output benchmarks/results/world.json

The scenes hold real pictures and sounds with their truth (`avgn evaluate` says how they are listed); thresholds are the
bundle's own. Every talking clip shows a face and speech, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.machine import measured_on
from avgn.runtime import Localizer
from avgn.runtime.arrays import Floats
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.engines.base import Engine
from avgn.runtime.localizer import run_media
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.runtime.media import open_media
from avgn.runtime.patches import PatchMemory, Window, hear
from avgn.runtime.reading import read_frame
from benchmarks.measuring import Turns
from benchmarks.world_faces import inside_faces
from benchmarks.world_scenes import on_scenes
from benchmarks.world_sheet import write_sheet

NOISE_SECONDS = 4.0
NOISE_FRAMES = 12
NOISE_STEP_SECONDS = 0.2
TIMED_SECONDS = 4.0
START = """
import time, sys
begin = time.perf_counter()
import numpy as np
from avgn.runtime import Localizer
localizer = Localizer.load(sys.argv[1], sys.argv[2], threads=1)
stream = localizer.open_stream(mode="live")
stream.push_audio(np.zeros(localizer.engine.info.window_samples, np.float32), localizer.engine.info.sample_rate, 0.0)
assert stream.push_frame(np.zeros((480, 640, 3), np.uint8), 1.0)
assert "torch" not in sys.modules
# getrusage would count what the process was forked from
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - begin, float(peak.split()[1]) * 1024 / 1e6)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--scenes", type=Path, nargs="+", required=True, help="manifests")
    parser.add_argument("--talking", type=Path, nargs="*", default=[], help="clips of somebody who talks")
    parser.add_argument("--faces", type=Path, help="what python -m benchmarks.world_faces found in those clips")
    parser.add_argument("--sheet", type=Path, help="a PNG of scenes that came out right and of such that did not")
    parser.add_argument("--beside", help="a bundle whose accuracy is told beside it")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    localizer = Localizer.load(args.bundle, args.backend, threads=1)
    engine = localizer.engine
    manifests = [read_manifest(path) for path in args.scenes]
    record: dict[str, Any] = {"machine": measured_on(), "bundle": Path(args.bundle).name, "backend": args.backend}
    record["megabytes"] = round(sum(file.stat().st_size for file in Path(args.bundle).iterdir()) / 1e6, 2)
    record |= on_scenes(engine, manifests)
    if args.beside:
        other = Localizer.load(args.beside, args.backend, threads=1).engine
        kept = ("scenes", "sound_decides")
        record["beside"] = {name: value for name, value in on_scenes(other, manifests).items() if name in kept}
    record["no_source_in_noise_percent"] = noises(localizer, manifests[0])
    record["talking"] = [talking(localizer, clip) for clip in args.talking]
    if args.faces:
        faces = json.loads(args.faces.read_text())
        for clip, row in zip(args.talking, record["talking"], strict=True):
            row["faces"] = inside_faces(localizer, clip, faces)
    if args.sheet:
        write_sheet(engine, manifests, args.sheet)
    record["one_core_ms"] = speed(engine)
    record["start"] = start(args.bundle, args.backend)
    text = json.dumps(record, indent=1) + "\n"
    print(text)
    if args.output:
        args.output.write_text(text)


def noise(rate: int) -> dict[str, Floats]:
    """Make sounds that belong to no class, NOISE_SECONDS each."""
    random = np.random.default_rng(0)
    count = round(NOISE_SECONDS * rate)
    time = np.arange(count) / rate

    def coloured(power: float) -> npt.NDArray[np.float64]:
        spectrum = np.fft.rfft(random.standard_normal(count))
        spectrum[1:] /= np.arange(1, len(spectrum)) ** (power / 2)
        spectrum[0] = 0
        sound = np.fft.irfft(spectrum, count)
        return np.asarray(sound / np.abs(sound).max())

    drops = np.zeros(count)
    length = rate // 40
    for at in random.integers(0, count - length, 3000):
        decay = np.exp(-np.arange(length) / random.uniform(10, 80))
        drops[at : at + length] += random.uniform(0.1, 1) * decay * random.standard_normal(length)
    hum = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 2, 3, 4))
    sounds = {
        "silence": np.zeros(count),
        "white": 0.3 * coloured(0),
        "white, quiet": 0.03 * coloured(0),
        "pink": 0.3 * coloured(1),
        "brown": 0.3 * coloured(2),
        "hum": 0.2 * hum,
        "rain-like": 0.3 * drops / np.abs(drops).max(),
        "room tone": 0.02 * coloured(1.5) + 0.004 * np.sin(2 * np.pi * 50 * time),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


def noises(localizer: Localizer, manifest: Manifest) -> dict[str, Any]:
    """Measure the percentage of frames without a source, for each noise, under pictures of the scenes with things that
    could sound."""
    info = localizer.engine.info
    frames = [read_frame(item.frame, info.image_size) for item in manifest.items[:NOISE_FRAMES] if item.frame]
    found: dict[str, Any] = {}
    named: Counter[str] = Counter()
    for name, sound in noise(info.sample_rate).items():
        quiet = []
        for frame in frames:
            stream = localizer.open_stream(mode="live")
            results = stream.push_audio(sound, info.sample_rate, 0.0)
            for time in np.arange(NOISE_STEP_SECONDS, NOISE_SECONDS - 0.1, NOISE_STEP_SECONDS):
                results += stream.push_frame(frame, float(time))
            for result in results + stream.flush():
                quiet.append(not result.sources)
                named.update(f"{name}: {source.label}" for source in result.sources)
        found[name] = round(100 * float(np.mean(quiet)), 2)
    return {"all": round(float(np.mean(list(found.values()))), 2), **found, "named": dict(named.most_common(12))}


def talking(localizer: Localizer, clip: Path) -> dict[str, Any]:
    """Measure in how many seconds of a clip speech is named, and how much its peak moves about."""
    seconds: dict[int, list[bool]] = {}
    peaks = []
    named: Counter[str] = Counter()
    for result, _ in run_media(localizer.open_stream(mode="file"), open_media(clip)):
        speech = [source for source in result.sources if source.label == "speech" and source.on_screen]
        seconds.setdefault(int(result.time), []).append(bool(speech))
        peaks += [source.peak for source in speech if source.peak is not None]
        named.update(source.label for source in result.sources)
    whole = [np.mean(frames) >= 0.5 for frames in seconds.values()]
    spread = np.asarray(peaks, dtype=np.float64).reshape(-1, 2)
    return {
        "clip": clip.name,
        "seconds": len(whole),
        "speech_percent": round(100 * float(np.mean(whole)), 1),
        "peak": {"mean": spread.mean(axis=0).round(3).tolist(), "deviation": spread.std(axis=0).round(3).tolist()}
        if len(spread)
        else None,
        "named": dict(named),
    }


def speed(engine: Engine) -> dict[str, Any]:
    """Time the image half, and one audio hop of a stream, on one core."""
    info = engine.info
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, *info.image_size, 3), dtype=np.uint8)
    sound = random.normal(0, 0.1, info.window_samples).astype(np.float32)
    sources = engine.run_audio(sound[None])["sources"]
    turns = Turns(
        {"image": lambda: engine.run_image(image, sources), "audio hop": hopping(engine, info, sound)}, TIMED_SECONDS
    )
    return {name: turns.milliseconds(name) for name in ("image", "audio hop")}


def hopping(engine: Engine, info: BundleInfo, sound: Floats) -> Callable[[], object]:
    """Make a call that runs the audio half on the next window of a stream."""
    memory, index = PatchMemory(), [0]

    def hop() -> object:
        index[0] += 1
        return hear(engine, [Window(index=index[0], waveform=sound, complete=index[0], memory=memory)])

    return hop


def start(bundle: str, backend: str) -> dict[str, float]:
    """Measure the seconds from an interpreter's first line to a first result, and the largest resident memory in
    megabytes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    times = []
    for _ in range(3):
        command = [sys.executable, "-c", START, bundle, backend]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        times.append(tuple(float(value) for value in done.stdout.split()[-2:]))
    return {
        "seconds": round(min(seconds for seconds, _ in times), 3),
        "megabytes": round(min(megabytes for _, megabytes in times), 1),
    }


if __name__ == "__main__":
    main()
