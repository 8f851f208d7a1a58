"""Pictures from an address with the sound of a microphone of this machine."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator

from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame
from avgn.runtime.sources import LiveEvent
from avgn.runtime.sources.devices import Reopened
from avgn.runtime.sources.url import UrlSource

# seconds of sound that the first picture waits for, and at most how long: a recording takes sound on with it, or never
FIRST_AUDIO_SECONDS = 0.1
PATIENCE = 1.0
POLL = 0.01


class MicrophoneBeside:
    """A network stream whose own sound, if it has any, gives way to a microphone's.

    Pictures and sound meet at the moments at which they come here: a stream's delay on the network is not known.
    """

    # for the outputs: it comes, though perhaps after the first picture
    has_audio = True

    def __init__(self, video: UrlSource, microphone: int | str | None = None) -> None:
        """`microphone`: index or name, None: the default one. Raises InputError when it can't be opened."""
        self._video = video
        self._microphone = Reopened(microphone)

    @property
    def name(self) -> str:
        return self._video.name

    def close(self) -> None:
        self._video.close()

    def events(self) -> Iterator[LiveEvent]:
        """Sound is handed on before each picture, so that a picture finds the sound that was captured before it."""
        is_first = True
        try:
            for event in self._video.events():
                if isinstance(event, AudioBlock | AudioEnd):
                    continue
                begin = self._video.clock.begin
                if isinstance(event, VideoFrame) and begin is not None:
                    yield from self._first_audio(begin) if is_first else self._microphone.events(begin)
                    is_first = False
                yield event
        finally:
            self._microphone.close()

    def _first_audio(self, begin: float) -> Iterator[LiveEvent]:
        """Yield the sound from before the first picture and the first that follows it, as far as the microphone
        gives any."""
        deadline, heard = clock.monotonic() + PATIENCE, 0.0
        while heard < FIRST_AUDIO_SECONDS and clock.monotonic() < deadline:
            for event in self._microphone.events(begin):
                if isinstance(event, AudioBlock):
                    heard = max(heard, event.time + len(event.samples) / event.rate)
                yield event
            clock.sleep(POLL)
