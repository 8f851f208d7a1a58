"""From a video file to an overlay video and JSON lines: the function behind `avgn localize`."""

from __future__ import annotations

import os
import sys
import time as clock
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from avgn.runtime.arrays import Pixels
from avgn.runtime.errors import InputError
from avgn.runtime.excerpt import Excerpt
from avgn.runtime.limits import waiting_frames
from avgn.runtime.localizer import Localizer, check_localizer, run_media
from avgn.runtime.media import MediaFile, open_media
from avgn.runtime.outputs import check_distinct
from avgn.runtime.result import Result
from avgn.runtime.sinks import ResultSink
from avgn.runtime.sinks.events import EventsWriter
from avgn.runtime.sinks.jsonl import JsonLinesWriter
from avgn.runtime.sinks.overlay import OverlayWriter
from avgn.runtime.sinks.together import Together
from avgn.runtime.summary import Summary, Tally
from avgn.runtime.workers import Worker

BEHIND = 8


def localize_file(
    localizer: Localizer,
    video: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    json_path: str | os.PathLike[str] | None = None,
    csv_path: str | os.PathLike[str] | None = None,
    audio: str | os.PathLike[str] | None = None,
    audio_track: str | int | None = None,
    batch: int = 4,
    sinks: Iterable[ResultSink] = (),
    show_progress: bool = False,
    start: float | None = None,
    duration: float | None = None,
    every: float | None = None,
) -> Summary:
    """Localize the sources of a video file, write what was asked for, and sum up.

    `output`: overlay video, whose suffix says the container; `json_path`: JSON lines; `csv_path`: events; "-" is
    standard output; `audio`: another file that has the sound; `audio_track`: which of its tracks, by number from 1 or
    language; `batch`: how many frames go through the image half at once; `sinks`: further callables (result, rgb),
    called in frame order from one thread; `show_progress`: on standard error, where it is a terminal. `start` and
    `duration` choose a part in seconds, `every` a frame every so many seconds: times stay the file's own, and the
    overlay begins at 0. On KeyboardInterrupt, and when nobody reads any output any more, the outputs are finished (the
    overlay is playable) and the exception goes on; on another error nothing is left behind.
    Raises InputError for anything given that can't be used.
    """
    check_localizer(localizer)
    part: dict[str, Any] = {"start": start, "duration": duration, "every": every}
    is_part = any(value is not None for value in part.values())
    if is_part:
        media: MediaFile = Excerpt(Path(video), None if audio is None else Path(audio), audio_track, **part)
    else:
        media = open_media(video, audio, audio_track=audio_track)
    inputs = (media.path, media.audio_path)
    check_distinct((output, json_path, csv_path))
    writers = Together()
    overlay: OverlayWriter | None = None
    try:
        if json_path is not None:
            writers.add(JsonLinesWriter(json_path, *inputs))
        if csv_path is not None:
            writers.add(EventsWriter(csv_path, *inputs))
        if output is not None:
            overlay = _overlay(output, media)
            writers.add(overlay)
        summary = _run(localizer, media, writers, tuple(sinks), batch, show_progress)
    except BaseException:
        writers.abort()
        raise
    if overlay is None:
        return summary
    drawn = {"draw": overlay.draw_ms, "encode": overlay.encode_ms}
    return replace(summary, ms=summary.ms | {name: ms / max(1, summary.frames) for name, ms in drawn.items()})


def _overlay(path: str | os.PathLike[str], media: MediaFile) -> OverlayWriter:
    if not isinstance(media, Excerpt):
        return OverlayWriter(path, media)
    return ShiftedOverlay(path, media.overlay(), media.start)


class ShiftedOverlay(OverlayWriter):
    """The overlay of a part of a video: the first second of the part is its own."""

    def __init__(self, path: str | os.PathLike[str], media: MediaFile, start: float) -> None:
        super().__init__(path, media)
        self._start = start

    def __call__(self, result: Result, rgb: Pixels) -> None:
        super().__call__(replace(result, time=result.time - self._start), rgb)


def _run(
    localizer: Localizer,
    media: MediaFile,
    writers: Together,
    sinks: tuple[ResultSink, ...],
    batch: int,
    show_progress: bool,
) -> Summary:
    size = (media.info.width, media.info.height)
    stream = localizer.open_stream(mode="file", batch=waiting_frames(*size, batch))
    tally = Tally()
    progress = _Progress(media) if show_progress and sys.stderr.isatty() else None
    calls: tuple[ResultSink, ...] = (writers, *sinks)

    def write(item: tuple[Result, Pixels]) -> None:
        for sink in calls:
            sink(*item)

    worker = Worker(write, waiting_frames(*size, BEHIND))
    begin = clock.perf_counter()
    try:
        _hand_on(run_media(stream, media), worker, writers, tally, progress)
    finally:
        if progress:
            progress.end()
    wall = clock.perf_counter() - begin
    frames = stream.state.frames
    seconds = max(tally.last_time + 1 / media.info.fps, media.held_until)
    if isinstance(media, Excerpt):
        if not frames:
            raise InputError(f"{media.path} has no picture from second {media.start:g} on: choose another --start")
        seconds -= media.start
    warnings = [*media.warnings(), *media.end_warnings(seconds), *media.audio_warnings(stream.state.clock.peak)]
    return Summary(
        engine=localizer.engine.name,
        frames=frames,
        seconds=seconds,
        wall_seconds=wall,
        ms=tally.mean_ms(frames),
        audio_windows=stream.state.windows,
        corrupt_frames=media.corrupt_frames,
        table=tally.table(),
        warnings=(*warnings, *stream.warnings()),
    )


def _hand_on(
    results: Generator[tuple[Result, Pixels], None, None],
    worker: Worker[tuple[Result, Pixels]],
    writers: Together,
    tally: Tally,
    progress: _Progress | None,
) -> None:
    """Give every result to the worker that writes, and finish the outputs, also of a run that is interrupted."""
    try:
        for result, rgb in results:
            worker.put((result, rgb))
            tally.add(result)
            if progress:
                progress.show(result)
        worker.finish()
        writers.close()
    except (KeyboardInterrupt, BrokenPipeError):
        results.close()
        writers.hurry()
        with suppress(BrokenPipeError):
            worker.finish()
        writers.close(interrupted=True)
        raise
    finally:
        results.close()
        with suppress(Exception):
            worker.finish()


class _Progress:
    """One line on the terminal, rewritten a few times a second."""

    def __init__(self, media: MediaFile) -> None:
        self._total = media.info.duration
        self._begin = self._shown = clock.perf_counter()

    def show(self, result: Result) -> None:
        now = clock.perf_counter()
        if now - self._shown < 0.2:
            return
        self._shown = now
        total = "" if self._total is None else f" of {self._total:.1f}"
        rate = (result.frame + 1) / (now - self._begin)
        sys.stderr.write(f"\r{result.time:8.1f}{total} s  {rate:6.1f} frames/s ")
        sys.stderr.flush()

    def end(self) -> None:
        sys.stderr.write("\r" + " " * 50 + "\r")
        sys.stderr.flush()
