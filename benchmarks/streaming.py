"""Measures how many live streams one engine serves, how late results are, and what a frame costs beside eager PyTorch.

python -m benchmarks.streaming --output benchmarks/results/streaming.json --plot docs/streaming.png [--bundle tiny]

"live": 1 to 16 streams are pushed in real time at 30 frames/s and share a MultiStream: frames that come together
are run together. "capacity": the same streams pushed as fast as they are taken. "batching": 8 streams batched,
against 8 separate unbatched runs at once. `--eager` names the checkpoint whose both halves on every frame are the
baseline of a frame's CPU time; "avgn-resnet18" stands for random weights of the full size, measured with a bundle of
its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avgn.checkpoint import load_model
from avgn.machine import measured_on
from avgn.runtime import Localizer, StreamLocalizer, open_media
from avgn.runtime.live_pipeline import LivePipeline
from avgn.runtime.media import AudioBlock, VideoFrame
from avgn.runtime.multi import MultiStream
from avgn.runtime.sources.pushed import PushedSource
from avgn.scenes import SceneConfig, synthesize
from benchmarks.bundles import quick_bundle, random_model
from benchmarks.measuring import Turns
from benchmarks.model import eager

FULL, NUM_CLASSES = "avgn-resnet18", 37
STREAMS = (1, 2, 4, 8, 16)
BATCHED_STREAMS = 8
ROUNDS = 3
FPS = 30
SEED = 77
SIZE = (640, 480)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--eager", default="recipes/checkpoint")
    parser.add_argument("--streams", default=",".join(map(str, STREAMS)))
    parser.add_argument("--seconds", type=float, default=8.0, help="that each number of live streams is measured")
    parser.add_argument("--threads", type=int, default=1, help="of the engine, and of eager PyTorch")
    parser.add_argument("--precision")
    parser.add_argument("--cache", type=Path, help="folder that keeps the exported bundle of avgn-resnet18")
    parser.add_argument("--parts", default="frame,live,capacity,batching")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = args.parts.split(",")
    with tempfile.TemporaryDirectory() as folder:
        if args.eager == FULL:
            model = random_model(FULL, NUM_CLASSES)
            bundle: Any = quick_bundle(model, (args.cache or Path(folder)) / FULL)
        else:
            model, bundle = load_model(args.eager), args.bundle
        localizer = Localizer.load(bundle, "auto", args.precision, threads=args.threads)
        pieces = render(Path(folder) / "scene")
        record: dict[str, Any] = {
            "machine": measured_on(),
            "bundle": str(args.bundle) if args.eager != FULL else f"{FULL}, random weights",
            "engine": localizer.engine.name,
            "precision": args.precision or "fp32",
            "threads": args.threads,
            "picture": "x".join(map(str, SIZE)),
        }
        counts = [int(count) for count in args.streams.split(",")]
        if "frame" in parts:
            record["frame_cpu"] = of_a_frame(localizer, model, pieces)
        if "live" in parts:
            record["live"] = [live(localizer, pieces, count, FPS, args.seconds) for count in counts]
        if "capacity" in parts:
            record["capacity"] = [capacity(localizer, pieces, count) for count in counts]
        if "batching" in parts:
            record["batching"] = batching(localizer, pieces)
    print(json.dumps(record, indent=1))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")
    if args.plot and {"live", "capacity"} <= set(parts):
        plot(record, args.plot)


def render(folder: Path) -> list[Any]:
    """Render a clip of 6 seconds and return its decoded pieces."""
    config = SceneConfig(split="test", sources=(1, 2), size=SIZE)
    synthesize(folder, scenes=1, config=config, seed=SEED, video_seconds=6.0, jobs=1)
    video = next(folder.rglob("*.mp4"))
    return [event for event in open_media(video).events(0.05) if isinstance(event, VideoFrame | AudioBlock)]


def of_a_frame(localizer: Localizer, model: Any, pieces: list[Any]) -> dict[str, Any]:
    """Measure the CPU time of a second of a stream, with resizing and decisions, against both halves in eager
    PyTorch."""
    info = localizer.engine.info
    frames = [piece for piece in pieces if isinstance(piece, VideoFrame)]
    blocks = [piece for piece in pieces if isinstance(piece, AudioBlock)]
    waveform = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, info.window_samples)).astype(np.float32))
    image = torch.zeros(1, *info.image_size, 3, dtype=torch.uint8)

    def second() -> None:
        stream = StreamLocalizer(localizer.engine, mode="live")
        for block in blocks:
            stream.push_audio(block.samples, block.rate, block.time)
        for index in range(FPS):
            stream.push_frame(frames[index % len(frames)].rgb, 1.0 + index / FPS)

    turns = Turns({"stream": second, "eager": partial(eager, model, waveform, image)}, 15.0)
    streamed = turns.cpu["stream"] / FPS
    return {
        "audio_hop_seconds": info.audio_hop_seconds,
        "stream_ms": round(1e3 * float(np.median(streamed)), 3),
        "eager_ms": round(1e3 * float(np.median(turns.cpu["eager"])), 3),
        "times_less": round(float(np.median(turns.cpu["eager"] / streamed)), 2),
    }


def capacity(localizer: Localizer, pieces: list[Any], streams: int) -> dict[str, Any]:
    """Measure frames a second of streams that wait for nothing but the engine."""
    frames = streams * sum(isinstance(piece, VideoFrame) for piece in pieces)
    cpu = time.process_time()
    seconds = run_batched(localizer, pieces, streams)
    return {
        "streams": streams,
        "frames_per_second": round(frames / seconds, 1),
        "times_real_time_at_30_fps": round(frames / seconds / streams / FPS, 2),
        "cpu_ms_per_frame": round(1e3 * (time.process_time() - cpu) / frames, 2),
    }


def batching(localizer: Localizer, pieces: list[Any]) -> dict[str, Any]:
    """Measure frames a second of 8 streams as fast as they go: one MultiStream, against 8 separate unbatched runs at
    once.

    Both read the same decoded pieces from memory and take turns, `ROUNDS` times.
    """
    frames = BATCHED_STREAMS * sum(isinstance(piece, VideoFrame) for piece in pieces)
    rates: dict[str, list[float]] = {"batched": [], "separate": []}
    for _ in range(ROUNDS):
        rates["batched"].append(frames / run_batched(localizer, pieces, BATCHED_STREAMS))
        rates["separate"].append(frames / run_separate(localizer, pieces))
    ratios = np.divide(rates["batched"], rates["separate"])
    return {
        "streams": BATCHED_STREAMS,
        "frames_per_second": {name: round(float(np.median(values)), 1) for name, values in rates.items()},
        "batched_over_separate": {f"p{q}": round(float(np.percentile(ratios, q)), 3) for q in (20, 50, 80)},
        "image_half_ms_per_frame": {str(batch): round(alone(localizer, batch), 3) for batch in (1, 2, 4, 8)},
    }


def alone(localizer: Localizer, batch: int) -> float:
    """Measure the median milliseconds per frame of the image half at a batch size."""
    info = localizer.engine.info
    image = np.random.default_rng(0).integers(0, 256, (batch, *info.image_size, 3), dtype=np.uint8)
    heard = localizer.engine.run_audio(np.zeros((batch, info.window_samples), np.float32))["sources"]
    turns = Turns({"image": partial(localizer.engine.run_image, image, heard)}, 1.0, least=20)
    return 1000 * float(np.median(turns.wall["image"])) / batch


def run_batched(localizer: Localizer, pieces: list[Any], streams: int) -> float:
    begin = time.perf_counter()
    with MultiStream(localizer.engine) as multi:

        def feed() -> None:
            handle = multi.open(lambda result, payload: None, lossless=True)
            for piece in pieces:
                if isinstance(piece, AudioBlock):
                    handle.push_audio(piece.samples, piece.rate, piece.time)
                else:
                    handle.push_frame(piece.rgb, piece.time)
            handle.finish(60.0)

        in_threads(feed, streams)
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
    in_threads(feed, BATCHED_STREAMS)
    return time.perf_counter() - begin


def in_threads(work: Any, count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def live(localizer: Localizer, pieces: list[Any], streams: int, fps: int, seconds: float) -> dict[str, Any]:
    """Measure latency, drops and CPU time of streams pushed in real time from memory."""
    length = max(piece.time for piece in pieces if isinstance(piece, VideoFrame)) + 1 / 25
    cpu = time.process_time()
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
    results = sum(each.results for each in stats)
    return {
        "streams": streams,
        "fps_asked_for": fps,
        "frames_per_second": round(results / seconds, 1),
        "results_of_each": [each.results for each in stats],
        "frames_of_each": [each.frames for each in stats],
        "dropped": sum(each.dropped for each in stats),
        "latency_ms": {f"p{q}": round(float(np.percentile(latencies, q)), 2) for q in (50, 95, 99)},
        "cpu_ms_per_result": round(1e3 * (time.process_time() - cpu) / max(1, results), 2),
        "first_result_seconds": round(max(each.first_result_seconds or 0.0 for each in stats), 3),
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


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw the frames a second, asked for and delivered, and the latency of 95 %, over the number of streams."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = record["live"]
    streams = [row["streams"] for row in rows]
    figure, (rate, late) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    rate.plot(streams, [row["streams"] * row["fps_asked_for"] for row in rows], ":", color="gray", label="asked for")
    rate.plot(streams, [row["frames_per_second"] for row in rows], "o-", label="live")
    rate.plot(
        [row["streams"] for row in record["capacity"]],
        [row["frames_per_second"] for row in record["capacity"]],
        "s--",
        label="as fast as they go",
    )
    rate.set_ylabel("frames/s of all streams")
    rate.legend(frameon=False)
    late.plot(streams, [row["latency_ms"]["p95"] for row in rows], "o-")
    late.set_ylabel("capture to result for 95 %, ms")
    for axis in (rate, late):
        axis.set_xlabel(f"streams at {FPS} frames/s")
        axis.set_xticks(streams)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    figure.suptitle(
        f"{record['bundle']}, {record['engine']}, {record['threads']} thread, {record['machine']['processor']}"
    )
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
