"""From a network stream to result lines and events: the function behind `avgn localize` with an address."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable

import numpy as np

from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.live_pipeline import LivePipeline, LiveStats
from avgn.runtime.localizer import Localizer, check_localizer
from avgn.runtime.media import AudioBlock
from avgn.runtime.outputs import check_distinct
from avgn.runtime.outputs.reasons import shown
from avgn.runtime.sinks import ResultSink
from avgn.runtime.sinks.events import EventsWriter
from avgn.runtime.sinks.jsonl import JsonLinesWriter
from avgn.runtime.sinks.overlay import LiveOverlay
from avgn.runtime.sinks.together import Together
from avgn.runtime.sinks.window import Window
from avgn.runtime.sources import Source, StateChange, has_audio
from avgn.runtime.sources.url import UrlSource

ATTEMPTS = 5
# seconds of frames without any sound after which the user is told once
SILENT_SECONDS = 5.0
# seconds between two looks at whether the run has ended, and between two updates of a window
POLL = 0.5
POLL_WINDOW = 0.015


def localize_live(
    localizer: Localizer,
    source: str | Source,
    *,
    json_path: str | os.PathLike[str] | None = None,
    csv_path: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    show: bool = False,
    seconds: float | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> LiveStats:
    """Localize a live source until it ends, `seconds` have passed or the user interrupts; outputs are finished then.

    `source`: an address, or an object such as `CameraSource` or `PushedSource`; `json_path`: JSON lines; `csv_path`:
    events; `output`: overlay video with the sound, whose suffix says the container; "-" is standard output, which gets
    result lines as they come; `show`: a window, whose closing ends the run; `report`: is given sentences for people, as
    of a source that was lost. Raises InputError for anything given that can't
    be used, FailureError when nothing was seen, KeyboardInterrupt when the user interrupts before anything was,
    BrokenPipeError when nobody reads any output any more.
    """
    check_localizer(localizer)
    if seconds is not None and not seconds > 0:
        raise InputError(f"--seconds must be above 0, got {seconds}: leave it out to go on until interrupted")
    live = UrlSource(source, attempts=ATTEMPTS) if isinstance(source, str) else source
    writers = Together()
    window: Window | None = None
    states = States(live.name, report)
    try:
        check_distinct((output, json_path, csv_path))
        if json_path is not None:
            writers.add(JsonLinesWriter(json_path))
        if csv_path is not None:
            writers.add(EventsWriter(csv_path))
        overlay = None if output is None else _add_overlay(writers, output, live, report)
        window = Window(f"avgn: {live.name}") if show else None
        sinks: list[ResultSink] = [writers] if window is None else [writers, window]
        listener = Listener(live, report, None if overlay is None else overlay.hear)
        with LivePipeline(live, localizer.engine, sinks, on_state=states.take, on_audio=listener.hear) as pipeline:
            interrupted = _wait(pipeline, listener, window, seconds)
            writers.hurry()
        if not pipeline.stats.frames and interrupted:
            raise KeyboardInterrupt
        if not pipeline.stats.frames:
            raise FailureError(_nothing(live.name, states.last, None if states.last.state == "ended" else seconds))
        writers.close()
        return pipeline.stats
    except (KeyboardInterrupt, BrokenPipeError):
        writers.close(interrupted=True)
        raise
    except BaseException:
        writers.abort()
        raise
    finally:
        if window is not None:
            window.close()


def _add_overlay(
    writers: Together, output: str | os.PathLike[str], live: Source, report: Callable[[str], None]
) -> LiveOverlay:
    overlay = LiveOverlay(output, lambda: bool(has_audio(live)))
    writers.add(overlay)
    if overlay.partial is not None:
        report(f"recording to {shown(overlay.partial)}, which becomes {shown(output)} in the end")
    return overlay


def _wait(pipeline: LivePipeline, listener: Listener, window: Window | None, seconds: float | None) -> bool:
    """Wait until the source ends, the time is up or the window is closed; return whether the user interrupted."""
    deadline = None if seconds is None else clock.monotonic() + seconds
    try:
        while deadline is None or clock.monotonic() < deadline:
            listener.look(pipeline.stats.frames)
            left = POLL if window is None else POLL_WINDOW
            if deadline is not None:
                left = min(left, max(0.01, deadline - clock.monotonic()))
            if pipeline.wait(left) or (window is not None and not window.update()):
                break
    except KeyboardInterrupt:
        return True
    return False


class States:
    """Reports every change of a source's state, and keeps the last one."""

    def __init__(self, name: str, report: Callable[[str], None]) -> None:
        self.last = StateChange(state="connecting")
        self._name = name
        self._report = report

    def take(self, change: StateChange) -> None:
        self.last = change
        self._report(f"{self._name}: {change.state}{f' ({change.reason})' if change.reason else ''}")


class Listener:
    """Reports once that a live source gives pictures but no audible sound."""

    def __init__(
        self, source: Source, report: Callable[[str], None], hear: Callable[[AudioBlock], None] | None = None
    ) -> None:
        self._source = source
        self._report = report
        self._hear = hear
        self._blocks = 0
        self._is_loud = False
        self._first: float | None = None
        self._told = False

    def hear(self, block: AudioBlock) -> None:
        """Note whether a block has sound in it, and hand it on."""
        self._blocks += 1
        self._is_loud = self._is_loud or bool(np.any(block.samples))
        if self._hear is not None:
            self._hear(block)

    def look(self, frames: int) -> None:
        """Report silence, if it has lasted long enough; `frames` have come so far."""
        if self._told or self._is_loud or not frames:
            return
        self._first = self._first or clock.monotonic()
        has_track = has_audio(self._source) is not False
        if has_track and clock.monotonic() - self._first < SILENT_SECONDS:
            return
        self._told = True
        what = "is silent" if self._blocks else "gives no sound" if has_track else "has no sound"
        way_out = (
            "--microphone default hears this machine's, --microphone NAME another of avgn devices"
            if isinstance(self._source, UrlSource)
            else "choose a microphone with --microphone (avgn devices lists them)"
        )
        self._report(f"{self._source.name} {what}, and without sound nothing is found: {way_out}")


def _nothing(name: str, last: StateChange, seconds: float | None) -> str:
    """Return the sentence about a source that gave nothing."""
    if seconds is not None:
        state = f"{last.state}, {last.reason}" if last.reason else last.state
        state = "connected, but without a picture" if last.state == "live" else state
        return f"{name} gave nothing in {seconds:g} s ({state}): give it longer with --seconds, or check the address"
    # an MP4 whose server says no length counts as live, and can't be read so
    whole = ", and pass --no-live if it is a file" if name.startswith(("http://", "https://")) else ""
    return f"{name} gave nothing ({last.reason or last.state}): check the address and that it is sending{whole}"


def stats_lines(stats: LiveStats) -> list[str]:
    """Format what a run did, for people."""
    lines = [f"{stats.results} results of {stats.frames} frames, {stats.dropped} dropped, {stats.losses} losses"]
    if stats.latencies:
        p50, p95 = (1000 * stats.latency(quantile) for quantile in (0.5, 0.95))
        lines.append(f"capture to result: {p50:.1f} ms in the middle, {p95:.1f} ms for 95 %")
    if stats.sink_dropped:
        lines.append(f"{stats.sink_dropped} results were not written: the outputs were too slow")
    return lines
