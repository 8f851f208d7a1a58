"""How fast a bundle is: milliseconds of both halves, and a 640x360 video file with decoding, overlay and encoding.

python -m benchmarks.speed --output benchmarks/results/speed.json [--bundle tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime import Localizer, localize_file
from avgn.scenes import SceneConfig
from avgn.scenes.video import write_scene_video

REPEATS = 200
SECONDS = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bundle", default="tiny")
    args = parser.parse_args()
    record: dict[str, Any] = {"machine": {"processor": platform.machine(), "cores": os.cpu_count()}, "halves": {}}
    for threads in (1, 2):
        engine = Localizer.load(args.bundle, threads=threads).engine
        info = engine.info
        waveform = np.zeros((1, info.window_samples), np.float32)
        image = np.zeros((1, *info.image_size, 3), np.uint8)
        sources = engine.run_audio(waveform)["sources"]
        record["halves"][f"{threads} threads"] = {
            "audio ms": _milliseconds(partial(engine.run_audio, waveform)),
            "image ms": _milliseconds(partial(engine.run_image, image, sources)),
        }
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "scene.mp4"
        config = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
        write_scene_video(video, seed=1, seconds=SECONDS, config=config)
        summary = localize_file(args.bundle, video, output=Path(folder) / "o.mp4", json_path=Path(folder) / "r.jsonl")
        record["file"] = {
            "size": "640x360",
            "frames": summary.frames,
            "frames per second": summary.frames_per_second,
            "times real time at 30 fps": summary.frames_per_second / 30,
            "ms per frame": summary.ms,
        }
    print(json.dumps(record, indent=1))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def _milliseconds(call: Callable[[], object]) -> dict[str, float]:
    for _ in range(10):
        call()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    p20, p50, p80 = np.percentile(times, [20, 50, 80])
    return {"p20": float(p20), "p50": float(p50), "p80": float(p80)}


if __name__ == "__main__":
    main()
