"""The object most programs want: a bundle loaded into an engine, ready to localize videos."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace

from avgn.runtime.arrays import Pixels
from avgn.runtime.bundle import DEFAULT, Bundle, BundleInfo, untrained_warning
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.engines import Engine, choose_engine
from avgn.runtime.limits import waiting_frames
from avgn.runtime.media import AudioBlock, MediaFile, VideoFrame, open_media
from avgn.runtime.result import Result
from avgn.runtime.stream import Mode, StreamLocalizer
from avgn.runtime.workers import prefetch

AHEAD = 8
log = logging.getLogger("avgn.runtime")


class Localizer:
    """An engine with the facts of its bundle in `bundle` (classes, sample_rate, window_seconds, image_size ...)."""

    def __init__(self, engine: Engine, bundle: Bundle | BundleInfo | None = None) -> None:
        self.engine = engine
        self.bundle = bundle or engine.info

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle = DEFAULT,
        backend: str = "auto",
        precision: str | None = None,
        *,
        threads: int | None = None,
    ) -> Localizer:
        """Load a bundle: a folder's path, or the name of a shipped one (by default world).

        `backend`: a name of `avgn.runtime.engines.ENGINES`, or auto for the first that this machine can run;
        `precision`: of the bundle's variants, by default the most exact one that the backend runs; `threads`: of an
        engine that computes on the CPU, by default the physical cores. Raises InputError for what can't be used,
        MissingExtraError when the engine's library is not installed.
        """
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        warning = untrained_warning(loaded.info, f"bundle {loaded.path}")
        if warning is not None:
            log.warning(warning)
        options = {} if threads is None else {"threads": threads}
        return cls(choose_engine(loaded, backend, precision, **options), loaded)

    def open_stream(
        self, *, mode: Mode = "live", batch: int = 1, decision: DecisionConfig | None = None
    ) -> StreamLocalizer:
        """Return a stream that the caller pushes sound and frames into."""
        return StreamLocalizer(self.engine, decision=decision, mode=mode, batch=batch)

    def stream(
        self,
        source: str | os.PathLike[str] | MediaFile,
        audio: str | os.PathLike[str] | None = None,
        *,
        batch: int = 4,
        mode: Mode = "file",
        decision: DecisionConfig | None = None,
    ) -> Iterator[Result]:
        """Return the results of a video file, frame by frame, each when it is asked for.

        `audio`: another file that has the sound; `batch`: how many frames go through the image half at once; `mode`:
        which audio window a frame takes (see `StreamLocalizer`); `decision`: constants in place of the bundle's own.
        Raises InputError for a file that can't be used.
        """
        stream = self.open_stream(mode=mode, batch=batch, decision=decision)
        return (result for result, _ in run_media(stream, _media(source, audio)))

    def stream_with_frames(
        self,
        source: str | os.PathLike[str] | MediaFile,
        audio: str | os.PathLike[str] | None = None,
        *,
        batch: int = 4,
        mode: Mode = "file",
        decision: DecisionConfig | None = None,
    ) -> Iterator[tuple[Result, Pixels]]:
        """Return what `stream` does, each result with its frame [H, W, 3] uint8 RGB."""
        return run_media(self.open_stream(mode=mode, batch=batch, decision=decision), _media(source, audio))


def check_localizer(localizer: object) -> None:
    """Raise TypeError, with the way to make one, for what is no Localizer."""
    if isinstance(localizer, Localizer):
        return
    bundle = repr(str(localizer)) if isinstance(localizer, str | os.PathLike) else "bundle"
    raise TypeError(
        f"localizer must be a loaded Localizer, got {type(localizer).__name__}: give Localizer.load({bundle})"
    )


def run_media(
    stream: StreamLocalizer, media: MediaFile, *, ahead: int = AHEAD
) -> Generator[tuple[Result, Pixels], None, None]:
    """Run an opened file through a stream; decoding runs up to `ahead` pieces ahead in a thread (0: no thread).

    Large pictures run less far ahead.
    """
    ahead = waiting_frames(media.info.width, media.info.height, ahead) if ahead else 0
    events = media.events(stream.lookahead)
    waiting: deque[VideoFrame] = deque()
    source = prefetch(events, ahead) if ahead else events
    try:
        for event in source:
            if isinstance(event, VideoFrame):
                waiting.append(event)
                results = stream.push_frame(event.rgb, event.time)
            elif isinstance(event, AudioBlock):
                results = stream.push_audio(event.samples, event.rate, event.time)
            else:
                results = stream.end_audio()
            for result in results:
                yield _with_frame(result, waiting.popleft())
        for result in stream.flush():
            yield _with_frame(result, waiting.popleft())
    finally:
        if hasattr(source, "close"):
            source.close()


def _with_frame(result: Result, frame: VideoFrame) -> tuple[Result, Pixels]:
    return replace(result, ms={"decode": frame.ms, **result.ms}), frame.rgb


def _media(source: str | os.PathLike[str] | MediaFile, audio: str | os.PathLike[str] | None) -> MediaFile:
    return source if isinstance(source, MediaFile) else open_media(source, audio)
