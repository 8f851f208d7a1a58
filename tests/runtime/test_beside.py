"""A stream's pictures with a microphone's sound: what comes before what, with a device that says what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame
from avgn.runtime.sources import LiveEvent, StateChange, beside
from avgn.runtime.sources.beside import MicrophoneBeside
from avgn.runtime.sources.times import WallClock

RATE = 8000


def block(time: float, value: float, samples: int = 500) -> AudioBlock:
    return AudioBlock(samples=np.full((samples, 1), value, np.float32), rate=RATE, time=time)


class Told:
    """A microphone: one list of blocks, with the moments of their first samples, for each time that it is asked."""

    def __init__(self, device: int | str | None) -> None:
        self.device = device
        self.asked = 0
        self.closed = False
        # a sixteenth of a second a block, the first one from before the first picture
        self.blocks = [[99.9375], [100.0], [100.0625], [100.125, 100.1875], [100.25]]

    def events(self, begin: float) -> Iterator[LiveEvent]:
        self.asked += 1
        for moment in self.blocks.pop(0) if self.blocks else []:
            yield block(moment - begin, 1.0)

    def close(self) -> None:
        self.closed = True


class Pictures:
    """A network stream with pictures and a sound of its own."""

    name = "rtsp://camera"

    def __init__(self) -> None:
        self.clock = WallClock(lambda: 100.0)

    def close(self) -> None:
        pass

    def events(self) -> Iterator[LiveEvent]:
        yield StateChange(state="live")
        self.clock()
        for number in range(3):
            yield VideoFrame(rgb=np.zeros((2, 2, 3), np.uint8), time=number / 25)
            yield block(number / 25, -1.0)
        yield AudioEnd()
        yield StateChange(state="ended")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[MicrophoneBeside, Told]:
    monkeypatch.setattr(beside, "Reopened", Told)
    source: Any = MicrophoneBeside(Pictures(), "the desk's")  # type: ignore[arg-type]
    return source, source._microphone


def kinds(events: list[LiveEvent]) -> str:
    return "".join({AudioBlock: "a", VideoFrame: "v", StateChange: "s", AudioEnd: "e"}[type(event)] for event in events)


def test_sound_of_before_the_first_picture_comes_before_it(made: tuple[MicrophoneBeside, Told]) -> None:
    source, microphone = made
    events = list(source.events())
    # a tenth of a second of sound, the picture, then what came until each further picture
    assert kinds(events) == "saaavaavavs"
    sounds = [event for event in events if isinstance(event, AudioBlock)]
    assert [each.time for each in sounds] == [-0.0625, 0.0, 0.0625, 0.125, 0.1875, 0.25]
    assert all((each.samples == 1.0).all() for each in sounds), "the stream's own sound is left out"
    assert microphone.device == "the desk's" and microphone.closed


def test_a_microphone_that_gives_nothing_holds_the_picture_up_for_a_moment(
    made: tuple[MicrophoneBeside, Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert beside.PATIENCE == 1.0
    monkeypatch.setattr(beside, "PATIENCE", 0.05)
    source, microphone = made
    microphone.blocks.clear()
    assert kinds(list(source.events())) == "svvvs"
