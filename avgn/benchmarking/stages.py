"""Measures a video file going through the whole pipeline, and each of its stages alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avgn.benchmarking.loading import load
from avgn.runtime import Localizer, StreamLocalizer, localize_file, open_media
from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.engines.base import Engine
from avgn.runtime.media import AudioBlock, MediaFile, VideoFrame
from avgn.runtime.outputs import open_output
from avgn.runtime.result import Result
from avgn.runtime.sinks.audio import AudioTrack
from avgn.runtime.sinks.video_file import VideoFile
from avgn.runtime.stream import Pending

STAGES = ("decode", "resize", "audio half", "image half", "decision", "overlay", "encode")
# what localize_file uses
BATCH_FRAMES = 4
WARM_UP_FRAMES = 20


def measure_stages(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one round on "video": the stages one after another, then the pipeline as `avgn localize` runs it.

    "wall_ms" and "cpu_ms" per frame of every stage, each measured while nothing else runs; "pipeline" holds frames,
    "frames_per_second", the "real_time_factor" (below 1: faster than real time) and the "cpu_ms" of a frame.
    """
    localizer = Localizer(load(job))
    media = open_media(job["video"])
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "overlay.mp4"
        wall, cpu = run_stages(localizer.engine, media, output)
        begin = time.process_time()
        summary = localize_file(localizer, job["video"], output=output, json_path=Path(folder) / "results.jsonl")
        used = time.process_time() - begin
    return {
        "frames": summary.frames,
        "wall_ms": wall,
        "cpu_ms": cpu,
        "pipeline": {
            "frames_per_second": summary.frames_per_second,
            "real_time_factor": summary.real_time_factor,
            "cpu_ms": 1e3 * used / summary.frames,
        },
    }


def run_stages(engine: Engine, media: MediaFile, output: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Measure (wall, CPU) milliseconds per frame of every stage.

    All frames are decoded before the first is localized, and all are drawn before the first is encoded: threads of a
    codec then work in their own stage alone.
    """
    _run(_Stream(engine, _Clock()), list(media.events(1.0))[:WARM_UP_FRAMES])
    clock = _Clock()
    stream = _Stream(engine, clock)
    with clock.measure("decode"):
        events = list(media.events(stream.lookahead))
    frames = [event.rgb for event in events if isinstance(event, VideoFrame)]
    results = _run(stream, events)
    with clock.measure("overlay"):
        drawn = [result.plot(rgb) for rgb, result in zip(frames, results, strict=True)]
    with clock.measure("encode"):
        size = (media.info.height, media.info.width)
        file = VideoFile(
            open_output(output), size, media.info.fps, lambda container, form: AudioTrack(media, container, form)
        )
        for rgb, result in zip(drawn, results, strict=True):
            file.write(rgb, result.time)
        file.close()
    return ({name: 1e3 * values[name] / len(frames) for name in STAGES} for values in (clock.wall, clock.cpu))  # type: ignore[return-value]


def _run(stream: StreamLocalizer, events: Sequence[object]) -> list[Result]:
    results: list[Result] = []
    for event in events:
        if isinstance(event, VideoFrame):
            results += stream.push_frame(event.rgb, event.time)
        elif isinstance(event, AudioBlock):
            results += stream.push_audio(event.samples, event.rate, event.time)
    return results + stream.flush()


class _Clock:
    """Counts wall and CPU seconds of the whole process, by stage."""

    def __init__(self) -> None:
        self.wall = dict.fromkeys(STAGES, 0.0)
        self.cpu = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.wall[name] += time.perf_counter() - wall
        self.cpu[name] += time.process_time() - cpu


class _Stream(StreamLocalizer):
    """Times the steps of a stream."""

    def __init__(self, engine: Engine, clock: _Clock) -> None:
        super().__init__(_TimedEngine(engine, clock), mode="file", batch=BATCH_FRAMES)
        self._clock = clock

    def take_frame(self, rgb: Pixels, time: float, *, dropped: int = 0) -> Pending:
        with self._clock.measure("resize"):
            return super().take_frame(rgb, time, dropped=dropped)

    def decide(self, *values: Any, **named: Any) -> Result:
        with self._clock.measure("decision"):
            return super().decide(*values, **named)


class _TimedEngine:
    """Times the halves of an engine."""

    def __init__(self, engine: Engine, clock: _Clock) -> None:
        self.name, self.info = engine.name, engine.info
        self._engine, self._clock = engine, clock

    def run_audio(self, waveform: Floats) -> dict[str, Floats]:
        with self._clock.measure("audio half"):
            return self._engine.run_audio(waveform)

    def run_image(self, image: Pixels, sources: Floats) -> dict[str, Floats]:
        with self._clock.measure("image half"):
            return self._engine.run_image(image, sources)
