"""A part of a video: from a second on, for so long, or a frame every so many seconds; times stay the file's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.media import AudioBlock, Event, MediaFile, VideoFrame

# seconds of sound before the first picture, for its window and what is smoothed
LEAD = 4.0
# seconds of sound after which decoders that began in the middle give what they would have given anyway
WARM_UP = 1.0


class Excerpt(MediaFile):
    """Reads the pictures of [start, start + duration), one every `every` seconds, and the sound that belongs to them.

    `shown` is the same for an overlay, which begins at 0 and has no other sound than that of its pictures.
    Raises InputError for seconds that can't be meant, and for a start behind the end.
    """

    # until the file is opened, all of it
    start = 0.0
    end = math.inf
    every: float | None = None
    shift = 0.0
    lead = 0.0

    def __init__(
        self,
        *media: Any,
        start: float | None = None,
        duration: float | None = None,
        every: float | None = None,
        shown: bool = False,
        **options: Any,
    ) -> None:
        for name, value, least in (("start", start, 0.0), ("duration", duration, 0.001), ("every", every, 0.001)):
            if value is not None and not least <= value < math.inf:
                raise InputError(f"--{name} must be {least:g} or more seconds, got {value}: leave it out for all")
        super().__init__(*media, **options)
        self.start = start or 0.0
        self.end = math.inf if duration is None else self.start + duration
        self.every = every
        self.shift = self.start if shown else 0.0
        self.lead = 0.0 if shown else LEAD
        self.frames_from = self.start
        self.audio_from = max(0.0, self.start - self.lead - WARM_UP)
        total = self.info.duration
        if total is not None and self.start >= total:
            raise InputError(f"--start {self.start:g} is behind the end of {self.path}, which lasts {total:.1f} s")
        self._media, self._options = media, {"start": start, "duration": duration, "every": every, **options}
        # how long it should last can't be told from the file, and packets of sound can't be cut: they are coded anew
        fps = self.info.fps if every is None else min(self.info.fps, 1 / every)
        codec = f"a part of {self.info.audio_codec}" if shown else self.info.audio_codec
        self.info = replace(self.info, duration=None, fps=fps, audio_codec=codec)

    def overlay(self) -> Excerpt:
        """Return what an overlay shows of it."""
        return Excerpt(*self._media, shown=True, **self._options)

    def video(self) -> Iterator[VideoFrame]:
        """Yield the pictures of the part, in order."""
        due = self.start
        for frame in super().video():
            if frame.time >= self.end:
                return
            if frame.time < due - 1e-6:
                continue
            if self.every is not None:
                due += self.every * (math.floor((frame.time - due) / self.every + 1e-6) + 1)
            yield replace(frame, time=frame.time - self.shift)

    def audio(self, **named: Any) -> Iterator[AudioBlock]:
        """Yield the sound of the part; before it, what the first pictures are decided with."""
        first, last = self.start - self.lead, self.end + self.lead
        for block in super().audio(**named):
            if block.time >= last:
                return
            skipped = max(0, math.ceil((first - block.time) * block.rate - 1e-6))
            kept = (
                min(len(block.samples), max(0, math.ceil((last - block.time) * block.rate)))
                if last < math.inf
                else None
            )
            samples = block.samples[skipped:kept]
            if len(samples):
                yield replace(block, samples=samples, time=block.time + skipped / block.rate - self.shift)

    def _hold(self, frame: VideoFrame, *rest: Any) -> Iterator[Event]:
        """Yield the last picture is held to the end of the part at most: its sound goes on for the last windows."""
        end = self.end - self.shift
        for event in super()._hold(frame, *rest):
            if not isinstance(event, VideoFrame) or event.time < end - 1e-6:
                yield event
        self.held_until = min(self.held_until, end)
