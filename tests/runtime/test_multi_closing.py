"""Several streams on one engine: one that is closed, or whose callback fails, harms nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from avgn.runtime import Result
from avgn.runtime.frame_queue import QUEUED
from avgn.runtime.multi import MultiStream
from tests.patience import tried_again, until
from tests.runtime.many_streams import Heard, load_engine, pictures


@pytest.fixture(scope="module")
def engine(bundle_path: Any) -> Any:
    return load_engine(bundle_path)


def test_a_stream_whose_callback_fails_is_closed_and_the_others_go_on(
    engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(result: Result, payload: Any) -> None:
        raise RuntimeError("the socket is gone")

    got: list[int] = []
    with MultiStream(engine) as multi:
        bad, good = multi.open(fail, name="bad"), multi.open(lambda result, at: got.append(at), lossless=True)
        bad.end_audio()
        good.end_audio()
        bad.push_frame(pictures(1, 0)[0], 0.0)
        for at in range(10):
            good.push_frame(pictures(1, at)[0], at / 10, at)
        assert good.finish(60.0)
        assert got == list(range(10)) and multi.error is None
        assert "what stream 'bad' does with its results failed" in caplog.text
        with pytest.raises(RuntimeError, match="stream 'bad' was closed"):
            bad.push_frame(pictures(1, 0)[0], 1.0)


def test_a_callback_that_closes_its_stream_and_fails_harms_nobody(engine: Any) -> None:
    got: list[int] = []
    with MultiStream(engine) as multi:

        def leave(result: Result, payload: Any) -> None:
            bad.close()
            raise RuntimeError("gone")

        bad, good = multi.open(leave, name="bad"), multi.open(lambda result, at: got.append(at), lossless=True)
        for handle in (bad, good):
            handle.end_audio()
            handle.push_frame(pictures(1, 0)[0], 0.0, 0)
        assert good.finish(60.0)
        good.push_frame(pictures(1, 1)[0], 0.1, 1)
        assert good.finish(60.0) and got == [0, 1] and multi.error is None


@tried_again
def test_closing_is_quick_and_leaves_no_thread(engine: Any) -> None:
    before = threading.active_count()
    multi = MultiStream(engine)
    handle = multi.open(lambda result, payload: None)
    handle.push_frame(pictures(1, 0)[0], 100.0)
    begin = time.monotonic()
    multi.close()
    assert time.monotonic() - begin < 1.0 and threading.active_count() == before
    with pytest.raises(RuntimeError, match="was closed"):
        handle.push_frame(pictures(1, 0)[0], 101.0)
    with pytest.raises(ValueError, match="max_batch must be at least 1"):
        MultiStream(engine, max_batch=0)


def closing(handle: Any, release: Callable[[], None]) -> threading.Thread:
    """Close a stream in a thread, and `release` what it waits for once it is closed."""
    thread = threading.Thread(target=handle.close)
    thread.start()
    until(lambda: handle._queue.is_closed)
    release()
    return thread


def test_a_frame_on_its_way_gives_no_result_once_its_stream_is_closed(engine: Any) -> None:
    held, got = Heard(engine, 0.0), []
    with MultiStream(held) as multi:
        held.entered.clear()
        held.go.clear()
        handle = multi.open(lambda result, at: got.append(at))
        handle.end_audio()
        handle.push_frame(pictures(1, 0)[0], 0.0)
        assert held.entered.wait(60)
        closing(handle, held.go.set).join(60)
        assert not got and handle.stats.results == 0
        # nothing of it is kept
        assert not multi._streams


def test_closing_waits_for_the_result_that_is_being_given(engine: Any) -> None:
    """Who closes a stream may let go of what its results need."""
    given, go, needed = threading.Event(), threading.Event(), [1]

    def use(result: Result, payload: Any) -> None:
        given.set()
        assert go.wait(60)
        needed[0] += 1

    with MultiStream(engine) as multi:
        handle = multi.open(use)
        handle.end_audio()
        handle.push_frame(pictures(1, 0)[0], 0.0)
        assert given.wait(60)
        thread = closing(handle, lambda: None)
        thread.join(0.3)
        assert thread.is_alive()
        go.set()
        thread.join(60)
        assert needed == [2] and multi.error is None


def test_who_waits_in_a_full_line_is_told_that_it_was_closed(engine: Any) -> None:
    raised: list[BaseException] = []
    with MultiStream(engine) as multi:
        handle = multi.open(lambda result, at: None, name="full", lossless=True)

        def push() -> None:
            try:
                # no sound comes, so none of them is run
                for at in range(QUEUED + 1):
                    handle.push_frame(pictures(1, at)[0], 100.0 + at)
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=push)
        thread.start()
        until(lambda: handle._queue.is_full)
        handle.close()
        thread.join(60)
    assert [str(error) for error in raised] == ["stream 'full' was closed: open another one"]
