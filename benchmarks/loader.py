"""How many samples a second the loader gives, beside how many training takes: a ratio measured in one run.

python -m benchmarks.loader --output benchmarks/results/loader.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from avgn.config import preset
from avgn.data.dataset import AudioVisualDataset
from avgn.data.loading import build_loader
from avgn.data.sampling import SeededBatches
from avgn.data.shards import read_shards, write_shards
from avgn.data.streaming import ShardedDataset, build_shard_loader
from avgn.machine import measured_on
from avgn.model import build_model
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import CLASSES, SceneConfig, synthesize
from avgn.types import Batch

BATCH = 16
NUM_PASSES = 3
SOURCES: dict[str, dict[str, Any]] = {"files": {}, "audio cache": {"audio_cache": "cache"}, "memory": {"cache": True}}
NUM_STEPS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--scenes", type=int, default=320)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), args.scenes, args.workers)
    print(json.dumps(record, indent=1))
    if args.output:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def measure(folder: Path, scenes: int, workers: list[int]) -> dict[str, Any]:
    config = preset("avgn-resnet18", classes=CLASSES)
    rendered = SceneConfig(split="train", size=(256, 192), seconds=10.0)
    manifest = read_manifest(synthesize(folder / "set", scenes=scenes, config=rendered, seed=0, jobs=2))
    write_shards(manifest, folder / "shards", megabytes=32)
    shards = read_shards(folder / "shards")
    steps = training_rate(manifest)
    rates: dict[str, float] = {}
    for count in workers:
        for name, options in SOURCES.items():
            given = {key: folder / value if key == "audio_cache" else value for key, value in options.items()}
            data = AudioVisualDataset(manifest, config, train=True, **given)
            rates[f"{name}, {count} workers"] = rate(build_loader(data, SeededBatches(len(data), BATCH, seed=0), count))
        streamed = ShardedDataset(shards, config, BATCH)
        rates[f"shards, {count} workers"] = rate(build_shard_loader(streamed, count))
    return {
        "machine": measured_on(),
        "scenes": scenes,
        "sound_seconds": rendered.seconds,
        "training_samples_per_second": round(steps, 2),
        "loader_samples_per_second": {name: round(value, 1) for name, value in rates.items()},
        "loader_over_training": {name: round(value / steps, 1) for name, value in rates.items()},
    }


def rate(loader: Iterable[Any]) -> float:
    """Return samples a second of the last of a few passes: caches are filled, workers run."""
    found = 0.0
    for _ in range(NUM_PASSES):
        begin, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch.image)
        found = count / (time.perf_counter() - begin)
    return found


def training_rate(manifest: Manifest) -> float:
    """Return samples a second that eager training of the full-size model takes, data at hand."""
    config = preset("avgn-resnet18", classes=CLASSES)
    model = build_model(config).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    data = AudioVisualDataset(manifest, config, train=True)
    batch: Batch = next(iter(build_loader(data, SeededBatches(len(data), BATCH, seed=0))))  # type: ignore[arg-type]
    times = []
    for _ in range(NUM_STEPS):
        begin = time.perf_counter()
        audio, image = model(batch.waveform, batch.image)
        model.losses(audio, image, batch.labels).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - begin)
    return BATCH / sorted(times[1:])[len(times) // 2]


if __name__ == "__main__":
    main()
