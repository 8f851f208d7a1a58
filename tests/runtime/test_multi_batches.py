"""Several streams on one engine: what is run together, how long it waits, and what it says it took."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from avgn.runtime import Result
from avgn.runtime.multi import MultiStream
from tests.patience import tried_again, until
from tests.runtime.graphs import RATE
from tests.runtime.many_streams import Heard, SlowEngine, load_engine, pictures, sound


@pytest.fixture(scope="module")
def engine(bundle_path: Any) -> Any:
    return load_engine(bundle_path)


def test_full_batches_are_run_before_streams_come(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that compiles for a size of batch must not do so amid the streams."""
    batches = []
    for half in ("audio", "image"):
        real = getattr(engine, f"run_{half}")

        def watched(*given: Any, half: str = half, real: Any = real) -> Any:
            batches.append((half, len(given[0])))
            return real(*given)

        monkeypatch.setattr(engine, f"run_{half}", watched)
    with MultiStream(engine, max_batch=3):
        assert batches == [("audio", 3), ("image", 3)]


def test_no_batch_of_sounds_is_larger_than_asked_for(engine: Any) -> None:
    slow = Heard(engine, 0.05)
    with MultiStream(slow, max_batch=2) as multi:
        handles = [multi.open(lambda result, payload: None) for _ in range(7)]
        for at in range(10):
            for handle in handles:
                handle.push_audio(sound(0.3, 0), RATE, 0.3 * at)
                handle.push_frame(pictures(1, at)[0], 0.3 * at)
        assert all(handle.finish(60.0) for handle in handles)
    assert max(slow.batches) == 2 and len(slow.batches) > 7


def in_one_batch(engine: Any, count: int) -> tuple[list[int], list[Result]]:
    """The sizes of the image half's batches, and the results, of one frame each of `count` streams at a time."""
    slow, got = SlowEngine(engine, 0.2), []
    with MultiStream(slow, max_batch=count, max_delay=30.0) as multi:
        slow.batches.clear()
        handles = [multi.open(lambda result, at: got.append(result)) for _ in range(count)]
        for handle in handles:
            handle.end_audio()
            handle.push_frame(pictures(1, 0)[0], 0.0)
        assert all(handle.finish(60.0) for handle in handles)
    return slow.batches, got


def test_a_results_time_is_its_share_of_the_batch(engine: Any) -> None:
    batches, got = in_one_batch(engine, 4)
    assert batches == [4] and len(got) == 4
    # a batch takes 200 ms and more; that of the image half is shared evenly
    assert len({result.ms["image"] for result in got}) == 1 and got[0].ms["image"] >= 50
    alone = in_one_batch(engine, 1)[1][0].ms["image"]
    assert alone >= 200 and got[0].ms["image"] < alone


def test_the_time_of_the_sound_is_its_share_of_the_batch(engine: Any) -> None:
    slow, got = Heard(engine, 0.0), []
    with MultiStream(slow, max_batch=4) as multi:
        handles = [multi.open(lambda result, at: got.append(result)) for _ in range(5)]
        slow.batches.clear()
        slow.hear.clear()
        slow.seconds = 0.2
        for handle in handles:
            handle.end_audio()
        # while the first one is heard, the others come
        handles[0].push_frame(pictures(1, 0)[0], 0.0, 0)
        until(lambda: slow.batches)
        for at, handle in enumerate(handles[1:], start=1):
            handle.push_frame(pictures(1, at)[0], 0.0, at)
        slow.hear.set()
        assert all(handle.finish(60.0) for handle in handles)
    assert slow.batches == [1, 4]
    four = [result.ms["audio"] for result in got[1:]]
    assert len(set(four)) == 1 and 50 <= four[0] < 200 <= got[0].ms["audio"]


def test_a_batch_that_can_grow_no_more_waits_for_nobody(engine: Any) -> None:
    got: list[int] = []
    with MultiStream(engine, max_batch=1, max_delay=600.0) as multi:
        handles = [multi.open(lambda result, at: got.append(at)) for _ in range(3)]
        handles[0].end_audio()
        handles[0].push_frame(pictures(1, 0)[0], 0.0, 7)
        until(lambda: got)
    assert got == [7]


@tried_again
def test_a_batch_waits_for_others_as_long_as_asked_for(engine: Any) -> None:
    got: list[float] = []
    with MultiStream(engine, max_delay=0.3) as multi:
        handles = [multi.open(lambda result, at: got.append(time.monotonic())) for _ in range(2)]
        handles[0].end_audio()
        begin = time.monotonic()
        handles[0].push_frame(pictures(1, 0)[0], 0.0)
        until(lambda: got)
    assert 0.3 <= got[0] - begin < 2.0


def test_batches_do_not_pile_up_behind_a_callback_that_takes_its_time(engine: Any) -> None:
    """They hold maps and pictures, and what was seen long ago is of no use: two wait while one is decided."""
    slow, go, said = SlowEngine(engine, 0.0), threading.Event(), threading.Event()

    def wait(result: Result, payload: Any) -> None:
        said.set()
        assert go.wait(60)

    with MultiStream(slow, max_batch=1) as multi:
        slow.batches.clear()
        handle = multi.open(wait, lossless=True)
        handle.end_audio()
        for at in range(10):
            handle.push_frame(pictures(1, at)[0], at / 10)
        assert said.wait(60)
        until(lambda: len(slow.batches) >= 3)
        # time enough for more, if there were any
        time.sleep(0.3)
        assert len(slow.batches) == 3
        go.set()
        assert handle.finish(60.0)
