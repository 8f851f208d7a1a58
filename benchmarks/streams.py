"""How many frames a second 8 streams get, batched on one engine and each on its own, and how late live results are.

python -m benchmarks.streams --output benchmarks/results/streams.json [--bundle tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime import Localizer, StreamLocalizer, open_media
from avgn.runtime.live import LivePipeline
from avgn.runtime.media import AudioBlock, VideoFrame
from avgn.runtime.multi import MultiStream
from avgn.runtime.sources.pushed import PushedSource
from avgn.scenes import SceneConfig, synthesize

STREAMS = 8
ROUNDS = 5
SEED = 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bundle", default="tiny")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = SceneConfig(split="test", sources=(1, 2), size=(640, 480))
        synthesize(Path(folder), scenes=1, config=config, seed=SEED, video_seconds=6.0, jobs=1)
        video = next(Path(folder).rglob("*.mp4"))
        record: dict[str, Any] = {
            "bundle": args.bundle,
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
            "batching": batching(args.bundle, video),
            "live": [live(args.bundle, video, streams, fps) for streams, fps in ((1, 30), (4, 15), (8, 15))],
        }
    print(json.dumps(record, indent=1))
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def batching(bundle: str, video: Path) -> dict[str, Any]:
    """Frames a second of 8 streams as fast as they go: one MultiStream, against 8 separate unbatched runs at once.

    Both read the same decoded pieces from memory and take turns, `ROUNDS` times.
    """
    localizer = Localizer.load(bundle)
    pieces = [event for event in open_media(video).events(0.05) if isinstance(event, VideoFrame | AudioBlock)]
    frames = STREAMS * sum(isinstance(piece, VideoFrame) for piece in pieces)
    ratios, rates = [], {"batched": [], "separate": []}  # type: ignore[var-annotated]
    for _ in range(ROUNDS):
        batched = frames / run_batched(localizer, pieces)
        separate = frames / run_separate(localizer, pieces)
        rates["batched"].append(batched)
        rates["separate"].append(separate)
        ratios.append(batched / separate)
    return {
        "streams": STREAMS,
        "frames per second": {name: round(float(np.median(values)), 1) for name, values in rates.items()},
        "ratio p20, p50, p80": [round(float(value), 3) for value in np.quantile(ratios, (0.2, 0.5, 0.8))],
        "image half alone, ms per frame": {
            str(batch): round(alone(localizer, pieces, batch), 3) for batch in (1, 2, 4, 8)
        },
    }


def alone(localizer: Localizer, pieces: list[Any], batch: int) -> float:
    """Median milliseconds per frame of the image half at a batch size."""
    info = localizer.engine.info
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch, *info.image_size, 3), dtype=np.uint8)
    heard = localizer.engine.run_audio(np.zeros((batch, info.window_samples), np.float32))["sources"]
    times = []
    for _ in range(60):
        begin = time.perf_counter()
        localizer.engine.run_image(image, heard)
        times.append((time.perf_counter() - begin) / batch)
    return 1000 * float(np.median(times[10:]))


def run_batched(localizer: Localizer, pieces: list[Any]) -> float:
    begin = time.perf_counter()
    with MultiStream(localizer.engine, max_batch=STREAMS) as multi:

        def feed() -> None:
            handle = multi.open(lambda result, payload: None, lossless=True)
            for piece in pieces:
                if isinstance(piece, AudioBlock):
                    handle.push_audio(piece.samples, piece.rate, piece.time)
                else:
                    handle.push_frame(piece.rgb, piece.time)
            handle.finish(60.0)

        in_threads(feed)
    return time.perf_counter() - begin


def run_separate(localizer: Localizer, pieces: list[Any]) -> float:
    def feed() -> None:
        stream = StreamLocalizer(localizer.engine, mode="live")
        for piece in pieces:
            if isinstance(piece, AudioBlock):
                stream.push_audio(piece.samples, piece.rate, piece.time)
            else:
                stream.push_frame(piece.rgb, piece.time)
        stream.flush()

    begin = time.perf_counter()
    in_threads(feed)
    return time.perf_counter() - begin


def in_threads(work: Any) -> None:
    threads = [threading.Thread(target=work) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def live(bundle: str, video: Path, streams: int, fps: int, seconds: float = 10.0) -> dict[str, Any]:
    """Latency and drops of streams pushed in real time from memory."""
    localizer = Localizer.load(bundle, threads=1)
    pieces = [event for event in open_media(video).events(0.05) if isinstance(event, VideoFrame | AudioBlock)]
    length = max(piece.time for piece in pieces if isinstance(piece, VideoFrame)) + 1 / 25
    with MultiStream(localizer.engine) as multi:
        pipelines = [LivePipeline(PushedSource(f"stream {index}"), multi) for index in range(streams)]
        for pipeline in pipelines:
            pipeline.start()
        in_step = [
            threading.Thread(target=_play, args=(each.source, pieces, length, fps, seconds)) for each in pipelines
        ]
        for thread in in_step:
            thread.start()
        for thread in in_step:
            thread.join()
        for pipeline in pipelines:
            pipeline.wait(5.0)
        stats = [pipeline.stats for pipeline in pipelines]
        for pipeline in pipelines:
            pipeline.stop()
    latencies = np.concatenate([list(each.latencies) for each in stats]) * 1e3
    return {
        "streams": streams,
        "fps asked for": fps,
        "results of each": [each.results for each in stats],
        "frames of each": [each.frames for each in stats],
        "dropped": sum(each.dropped for each in stats),
        "capture to result ms p50, p95, p99": [round(float(v), 2) for v in np.quantile(latencies, (0.5, 0.95, 0.99))],
        "first result seconds": round(max(each.first_result_seconds or 0.0 for each in stats), 3),
    }


def _play(source: Any, pieces: list[Any], length: float, fps: int, seconds: float) -> None:
    """Push a clip in real time, repeated; its frames are chosen or repeated to come at `fps`."""
    begin = time.monotonic()
    frames = [piece for piece in pieces if isinstance(piece, VideoFrame)]
    blocks = [piece for piece in pieces if isinstance(piece, AudioBlock)]
    heard = 0
    for index in range(int(seconds * fps)):
        now = index / fps
        time.sleep(max(0.0, begin + now - time.monotonic()))
        while blocks[heard % len(blocks)].time + heard // len(blocks) * length <= now:
            block = blocks[heard % len(blocks)]
            source.push_audio(block.samples, block.rate, block.time + heard // len(blocks) * length)
            heard += 1
        source.push_frame(frames[int((now % length) / length * len(frames))].rgb, now)
    source.end()


if __name__ == "__main__":
    main()
