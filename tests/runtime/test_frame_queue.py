"""The line of a live stream's frames, on a clock that the test holds: no thread, no engine, no waiting."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.runtime.frame_queue import BURST, STALE, STALE_FIRST, FrameQueue
from avgn.runtime.stream import AudioWindow, Pending

IMAGE = np.zeros((1, 1, 3), np.uint8)
NONE = np.zeros(0, np.float32)
# a moment at which a stream's first frames are long past
LATER = 10.0
# the most frames in line, and the most windows that are kept: half a second of one, eight hops of the other
QUEUED, KEPT_WINDOWS = 15, 8


def frame(number: int, window: int = 0) -> Pending:
    return Pending(time=number / 25, number=number, window=window, image=IMAGE, dropped=0, resize_ms=0.0)


def window(index: int) -> AudioWindow:
    return AudioWindow(index=index, sources=NONE, audio_prob=NONE, loudness_db=0.0, ms=0.0)


def line(*windows: int, lossless: bool = False, max_wait: float = 0.25, at: float = 0.0) -> FrameQueue:
    """A line with one frame for each of these windows, all arrived at `at`."""
    queue = FrameQueue(lossless=lossless, max_wait=max_wait)
    for number, index in enumerate(windows):
        queue.put(frame(number, index), number, at)
    return queue


def test_a_frame_is_run_when_its_window_was_heard() -> None:
    queue = line(3)
    assert not queue.is_ready(0.1) and not queue.is_done
    assert queue.wanted_window(3, False, 0.1) == 3
    queue.hear()
    # one window at a time
    assert queue.wanted_window(3, False, 0.1) is None
    queue.heard(window(3), 0.2)
    assert queue.is_ready(0.2)
    waiting, heard = queue.take(0.2)
    assert (waiting.payload, waiting.lost, heard.index) == (0, 0, 3)
    assert queue.is_flying and not queue.is_done
    queue.land()
    assert queue.is_done and not queue.is_flying and queue.stats.windows == queue.stats.frames == 1


def test_a_window_is_wanted_when_its_sound_is_there_has_ended_or_is_too_late() -> None:
    assert line(3).wanted_window(2, False, 0.2) is None
    assert line(3).wanted_window(3, False, 0.0) == 3
    assert line(3).wanted_window(2, True, 0.0) == 3
    assert [line(3).wanted_window(2, False, now) for now in (0.249, 0.25)] == [None, 3]
    assert line(3, max_wait=float("inf")).wanted_window(2, False, 1e9) is None
    # before all sound is silence, which nobody waits for
    assert line(-2).wanted_window(-1, False, 0.0) == -2
    # who is behind hears the newest that is there; a lossless line goes in order
    assert line(1, 2, 3).wanted_window(2, False, 0.0) == 2
    assert line(1, 2, 3, lossless=True).wanted_window(2, False, 0.0) == 1


def test_an_idle_stream_hears_what_is_complete_so_that_the_next_frame_need_not_wait() -> None:
    queue = line()
    assert [queue.wanted_window(index, False, 0.0) for index in (0, 1)] == [None, 1]
    queue.heard(window(1), 0.0)
    assert [queue.wanted_window(index, False, 0.0) for index in (1, 2)] == [None, 2]
    assert line(lossless=True).wanted_window(5, False, 0.0) is None
    queue.put(frame(0, 1), None, 1.0)
    assert queue.is_ready(1.0)


def test_a_stale_frame_gives_way_to_a_newer_one_and_is_counted() -> None:
    queue = line(1)
    queue.heard(window(1), 0.0)
    for number in range(1, 4):
        queue.put(frame(number, 1), number, LATER + number / 1000)
    # as long as none is stale the oldest is next
    now = LATER + STALE
    assert queue.take(LATER + 0.003)[0].payload == 1 and queue.stats.dropped == 1
    queue.put(frame(4, 1), 4, now)
    assert queue.take(now + STALE)[0].payload == 4
    assert queue.stats.dropped == 3
    # the last one is run however late it is
    queue.put(frame(5, 1), 5, now)
    waiting, _ = queue.take(now + 100)
    assert (waiting.payload, waiting.lost) == (5, 0)


def test_the_first_frames_may_come_at_once() -> None:
    queue = line(1, 1)
    queue.put(frame(2, 1), 2, BURST)
    queue.heard(window(1), 0.2)
    assert queue.take(0.2 + STALE_FIRST)[0].payload == 0
    assert queue.take(0.21 + STALE_FIRST)[0].payload == 2


def test_waiting_for_sound_makes_no_frame_stale() -> None:
    queue = line(1, 2)
    queue.put(frame(2, 2), 2, LATER)
    # the first frame's window is heard long after the frame came
    queue.heard(window(2), LATER + 5)
    assert queue.take(LATER + 5)[0].payload == 1
    assert queue.stats.dropped == 1


def test_a_lossless_line_keeps_every_frame_and_their_order() -> None:
    queue = line(1, 2, 2, lossless=True)
    queue.heard(window(2), 0.0)
    assert not queue.is_ready(50.0)
    queue.heard(window(1), 0.0)
    assert [queue.take(100.0)[0].payload for _ in range(3)] == [0, 1, 2] and queue.stats.dropped == 0


def test_a_full_line_lets_go_of_its_oldest_frame_and_the_next_result_says_so() -> None:
    queue = line(*[1] * QUEUED)
    assert queue.is_full
    queue.put(frame(99, 1), 99, 0.0)
    queue.heard(window(1), 0.0)
    waiting, _ = queue.take(0.0)
    assert (waiting.payload, waiting.lost, queue.stats.dropped, queue.stats.frames) == (1, 1, 1, QUEUED + 1)
    assert queue.take(0.0)[0].lost == 0 and not queue.is_full


def test_old_windows_are_let_go_of() -> None:
    queue = line()
    for index in range(KEPT_WINDOWS + 1):
        queue.heard(window(index), 0.0)
    queue.put(frame(0, 0), None, 0.0)
    assert not queue.is_ready(0.0)
    queue.put(frame(1, 1), None, 0.0)
    assert queue.is_ready(0.0)


@pytest.mark.parametrize("abandon", [False, True])
def test_a_closed_line_gives_nothing_more(abandon: bool) -> None:
    queue = line(1, 1)
    queue.heard(window(1), 0.0)
    queue.take(0.0)
    (queue.abandon if abandon else queue.close)()
    assert queue.is_closed and not queue.is_ready(0.0) and queue.wanted_window(9, True, 0.0) is None
    # what is on its way still lands, unless nothing does any more
    assert queue.is_flying is not abandon
    queue.land()
    assert queue.is_done
