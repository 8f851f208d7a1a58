"""Events as rows: when each source was heard, and where it was in the mean."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from avgn.runtime.decision import Heard
from avgn.runtime.result import Result
from avgn.runtime.sinks.events import EventFollower, EventsWriter


def result(time: float, **peaks: tuple[float, float] | None) -> Result:
    """A frame in which these classes sound, each at its peak (x, y), None: off-screen."""
    return Result(
        time=time,
        frame=0,
        state="source",
        sources=tuple(
            Heard(label=label, index=0, audio_prob=0.9, visual_prob=0.9, on_screen=peak is not None, peak=peak)
            for label, peak in peaks.items()
        ),
        audio_prob=np.zeros(1, np.float32),
        visual_prob=np.zeros(1, np.float32),
        maps=np.zeros((1, 1, 1), np.float32),
        loudness_db=-20.0,
        window=0,
        ms={},
    )


def test_an_event_lasts_from_its_first_to_its_last_frame_and_its_place_is_the_mean_of_those_that_show_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.csv"
    writer = EventsWriter(path)
    writer(result(0.0, dog=(0.1, 0.8)))
    writer(result(0.5, dog=(0.3, 0.4), bell=None))
    writer(result(1.0, dog=None, bell=None))
    writer(result(1.5, bell=None))
    # it sounds again: another event
    writer(result(2.0, dog=(0.9, 0.2)))
    writer.close()
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "start", "end", "on_screen", "mean_x", "mean_y", "frames"],
        ["dog", "0.000", "1.000", "0.667", "0.2000", "0.6000", "3"],
        ["bell", "0.500", "1.500", "0.000", "", "", "3"],
        ["dog", "2.000", "2.000", "1.000", "0.9000", "0.2000", "1"],
    ]


def test_what_a_spreadsheet_would_compute_is_text(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    writer = EventsWriter(path)
    for number, begin in enumerate("=+-@＝＋－＠x"):
        writer(result(number, **{f"{begin}1": None}))
    writer.close()
    with path.open(newline="", encoding="utf-8") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    assert names == [f"'{begin}1" for begin in "=+-@＝＋－＠"] + ["x1"]


def test_events_end_when_their_class_is_no_longer_heard() -> None:
    follower = EventFollower()
    assert not follower.add(result(0.0, dog=None, bell=None))
    assert [event.label for event in follower.add(result(0.1, bell=None))] == ["dog"]
    assert [(event.label, event.end) for event in follower.finish()] == [("bell", 0.1)] and not follower.finish()
