"""Measures how well a bundle localizes: the numbers of the model card, on test scenes rendered for the purpose.

python -m benchmarks.quality --output benchmarks/results/quality.json [--bundle tiny]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.cli.options import load_engine
from avgn.evaluation import evaluate, format_table, sound_decides
from avgn.machine import measured_on
from avgn.runtime.engines import Engine
from avgn.runtime.localizer import Localizer
from avgn.runtime.manifest import read_manifest
from avgn.scenes import SceneConfig, render_scene, render_swap, synthesize
from avgn.scenes.draw import Draw
from avgn.scenes.noise import KINDS, draw_noise

SEED = 90_210
RATE = 22_050
NOISE_SECONDS = 6.0
NOISE_LEVELS_DB = (-35.0, -20.0)
FPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bundle", default="tiny", help="bundle or checkpoint")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    engine = load_engine(args.bundle)
    record: dict[str, Any] = {
        "bundle": engine.info.model["name"],
        "engine": engine.name,
        "machine": measured_on(),
        "seed": args.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
        stills = synthesize(Path(folder) / "stills", scenes=args.scenes, config=config, seed=args.seed)
        record["stills"] = evaluate(engine, read_manifest(stills), ["source-wise", "adaptive"])
        mixed = SceneConfig(split="test", sources=(0, 3), silent=(1, 2))
        videos = synthesize(
            Path(folder) / "videos", scenes=args.videos, config=mixed, seed=args.seed + 1, video_seconds=12.0
        )
        record["videos"] = evaluate(engine, read_manifest(videos), ["video"])
    print(format_table([*record["stills"], *record["videos"]]))
    pair = SceneConfig(split="test", sources=(1, 1), silent=(1, 1), off_screen=0.0)
    pairs = [render_swap(pair, args.seed + 2, index) for index in range(args.scenes)]
    record["sound_decides"] = sound_decides(engine, pairs)
    record["frames_without_source_percent"] = noise_table(engine, args.seed + 3)
    print(json.dumps({name: record[name] for name in ("sound_decides", "frames_without_source_percent")}, indent=1))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def noise_table(engine: Engine, seed: int) -> dict[str, float]:
    """Measure the percentage of frames without any source (on or off screen) for each kind of noise, over scenes of
    silent objects."""
    length = round(NOISE_SECONDS * RATE)
    sounds: dict[str, Callable[[int], NDArray[np.float32]]] = {"silence": lambda index: np.zeros(length, np.float32)}
    for kind in KINDS:
        sounds[kind] = lambda index, kind=kind: _noise(kind, length, seed + index)  # type: ignore[misc]
    return {
        name: float(np.mean([_quiet_share(engine, sound(index), seed, index) for index in range(10)]))
        for name, sound in sounds.items()
    }


def _noise(kind: str, length: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    level = 10 ** (rng.uniform(*NOISE_LEVELS_DB) / 20)
    return (level * draw_noise(kind, length, Draw(rng, "test"))).astype(np.float32)


def _quiet_share(engine: Engine, sound: NDArray[np.float32], seed: int, index: int) -> float:
    scene = render_scene(SceneConfig(split="test", sources=(0, 0), silent=(1, 3), size=(320, 180)), seed, index)
    stream = Localizer(engine).open_stream(mode="file", batch=4)
    stream.push_audio(sound, RATE, 0.0)
    stream.end_audio()
    results = []
    for frame in range(int(NOISE_SECONDS * FPS)):
        results += stream.push_frame(scene.frame, frame / FPS)
    results += stream.flush()
    return 100.0 * sum(not result.sources for result in results) / len(results)


if __name__ == "__main__":
    main()
