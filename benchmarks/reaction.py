"""Measures how soon a live stream reports that something begins or ceases to sound.

python -m benchmarks.reaction --output benchmarks/results/reaction.json [--bundle tiny]

Rendered videos of the test split, run as live streams (each frame has the last window that ended at or before it). The
onset's latency is from the sound's beginning to the first frame that names it; the release's from its end to the first
frame that does not. A beginning counts when its class was silent for a second before it, an end when it is for a second
after it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from avgn.machine import measured_on
from avgn.runtime import Localizer, open_media, read_manifest
from avgn.runtime.localizer import run_media
from avgn.scenes import SceneConfig, synthesize

NUM_VIDEOS = 24
VIDEO_SECONDS = 12.0
SEED = 411
QUIET_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bundle", default="tiny")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = SceneConfig(split="test", sources=(1, 2), off_screen=0.0)
        manifest = synthesize(
            Path(folder) / "set",
            scenes=NUM_VIDEOS,
            config=config,
            seed=SEED,
            video_seconds=VIDEO_SECONDS,
            jobs=os.cpu_count() or 1,
        )
        record = measure(args.bundle, manifest)
    print(json.dumps(record, indent=1))
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def measure(bundle: str, path: Path) -> dict[str, Any]:
    localizer = Localizer.load(bundle)
    onsets: list[float] = []
    releases: list[float] = []
    missed = held = 0
    for item in read_manifest(path).items:
        assert item.video_file is not None
        stream = localizer.open_stream(mode="live", batch=4)
        lines = [
            (result.time, {source.label for source in result.sources})
            for result, _ in run_media(stream, open_media(item.video_file))
        ]
        for source in item.sources:
            for begin, end in source.intervals or ():
                others = [other for other in source.intervals or () if other != (begin, end)]
                before = max([0.0, *(other[1] for other in others if other[1] <= begin)])
                after = min([VIDEO_SECONDS, *(other[0] for other in others if other[0] >= end)])
                if begin - before >= QUIET_SECONDS:
                    named = [time for time, labels in lines if begin <= time < end and source.label in labels]
                    missed += not named
                    onsets += [named[0] - begin] if named else []
                if after - end >= QUIET_SECONDS:
                    gone = [time for time, labels in lines if end <= time < after and source.label not in labels]
                    held += not gone
                    releases += [gone[0] - end] if gone else []
    return {
        "bundle": bundle,
        "machine": measured_on(),
        "videos": NUM_VIDEOS,
        "window_seconds": localizer.bundle.window_seconds,
        "hop_seconds": localizer.engine.info.audio_hop_seconds,
        "onset_seconds": _spread(onsets) | {"never_named": missed},
        "release_seconds": _spread(releases) | {"named_until_next_sound": held},
    }


def _spread(values: list[float]) -> dict[str, float]:
    found = np.quantile(values, (0.1, 0.5, 0.9))
    return {"events": len(values), **{f"p{p}": round(float(v), 3) for p, v in zip((10, 50, 90), found, strict=True)}}


if __name__ == "__main__":
    main()
