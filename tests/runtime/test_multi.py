"""Several streams on one engine: results as alone, nobody starves, sounds and frames wait for each other."""

from __future__ import annotations

import queue
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from avgn.runtime import Result, StreamLocalizer
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.multi import MultiStream
from tests.patience import tried_again, until
from tests.runtime.graphs import RATE
from tests.runtime.many_streams import SIZE, Heard, SlowEngine, load_engine, pictures, sound


@pytest.fixture(scope="module")
def engine(bundle_path: Any) -> Any:
    return load_engine(bundle_path)


@pytest.mark.parametrize("streams", [1, 3])
def test_lossless_streams_give_what_each_gives_alone(engine: Any, streams: int) -> None:
    fps, count = 25, 60
    expected = []
    for seed in range(streams):
        alone = StreamLocalizer(engine, mode="live")
        found = alone.push_audio(sound(3.0, seed), RATE, 0.0)
        for at, rgb in enumerate(pictures(count, seed)):
            found += alone.push_frame(rgb, at / fps)
        expected.append(found + alone.flush())
    got: list[list[Result]] = [[] for _ in range(streams)]
    with MultiStream(engine) as multi:

        def run(seed: int) -> None:
            handle = multi.open(lambda result, at: got[seed].append(result), lossless=True)
            wave, step = sound(3.0, seed), 1000
            for start in range(0, wave.size, step):
                handle.push_audio(wave[start : start + step], RATE, start / RATE)
            for at, rgb in enumerate(pictures(count, seed)):
                handle.push_frame(rgb, at / fps, at)
            assert handle.finish(60.0)
            handle.close()

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for mine, truth in zip(got, expected, strict=True):
        assert [result.frame for result in mine] == [result.frame for result in truth] == list(range(count))
        for one, other in zip(mine, truth, strict=True):
            assert one.window == other.window and one.state == other.state and one.dropped == 0
            np.testing.assert_allclose(one.maps, other.maps, atol=1e-5)
            assert [source.label for source in one.sources] == [source.label for source in other.sources]


def note(times: list[int], ages: list[float], result: Result, payload: tuple[int, float]) -> None:
    times.append(payload[0])
    ages.append(time.monotonic() - payload[1])


def test_a_slow_engine_drops_frames_counts_them_and_starves_nobody(engine: Any) -> None:
    slow = SlowEngine(engine, 0.1)
    seen: list[list[int]] = [[] for _ in range(4)]
    ages: list[float] = []
    with MultiStream(slow, max_batch=2) as multi:
        handles = [multi.open(partial(note, times, ages)) for times in seen]
        for handle in handles:
            handle.push_audio(sound(4.0, 0), RATE, 0.0)
        begin = time.monotonic()
        for at in range(60):
            for handle in handles:
                handle.push_frame(pictures(1, at)[0], at / 20, (at, time.monotonic()))
            time.sleep(max(0.0, begin + (at + 1) / 20 - time.monotonic()))
        assert all(handle.finish(60.0) for handle in handles)
    # 2 of 4 streams a batch, 0.1 s a batch: a frame waits for two batches at most, never for a line of them (0.75 s)
    assert np.median(ages) <= 0.4, ages
    counts = [len(times) for times in seen]
    assert max(counts) - min(counts) <= 3 and min(counts) >= 8
    for handle, times in zip(handles, seen, strict=True):
        assert times == sorted(times)
        # the newest frame wins, and every frame is either a result or counted
        assert handle.stats.results + handle.stats.dropped == handle.stats.frames == 60
        assert handle.stats.dropped > 20 and times[-1] == 59
    assert max(slow.batches) == 2


class GatedEngine(SlowEngine):
    """The real engine, whose image half waits for `gate` and says which streams' pictures it was given."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine, 0.0)
        self.gate = threading.Semaphore(1000)
        self.served: queue.Queue[list[int]] = queue.Queue()

    def run_image(self, image: Any, sources: Any) -> Any:
        self.served.put([int(picture.flat[0]) for picture in image])
        assert self.gate.acquire(timeout=60)
        return super().run_image(image, sources)


def test_a_stream_with_a_frame_waits_until_each_other_one_was_served_once(engine: Any) -> None:
    """However frames come: a turn that counts only those ready at the moment passes over the same stream again."""
    streams, batch, rng = 5, 2, np.random.default_rng(4)
    gated = GatedEngine(engine)
    with MultiStream(gated, max_batch=batch, max_delay=0.0) as multi:
        first: queue.Queue[Any] = queue.Queue()
        handles = [multi.open(lambda result, at: first.put(result)) for _ in range(streams)]

        def push(stream: int, at: int) -> None:
            handles[stream].push_frame(np.full((*SIZE, 3), stream, np.uint8), at / 20)

        for stream, handle in enumerate(handles):
            handle.end_audio()
            push(stream, 0)
            # its window was heard: from now on a frame is ready as it comes
            first.get(timeout=60)
        while not gated.served.empty():
            gated.served.get()
        gated.gate = threading.Semaphore(0)
        push(0, 1)
        waited = dict.fromkeys(range(streams), 0)
        flying = gated.served.get(timeout=60)
        ready: set[int] = set()
        for at in range(2, 200):
            # while the engine is busy with a batch
            for stream in rng.choice(streams, rng.integers(2, streams + 1), replace=False):
                push(int(stream), at)
                ready.add(int(stream))
            gated.gate.release()
            flying = gated.served.get(timeout=60)
            ready -= set(flying)
            waited = {stream: waited[stream] + 1 if stream in ready else 0 for stream in waited}
            assert max(waited.values()) <= -(-streams // batch), (at, flying, waited)
        gated.gate.release(1000)


def test_frames_do_not_wait_for_sound_for_ever(engine: Any) -> None:
    got: list[float] = []
    with MultiStream(engine) as multi:
        handle = multi.open(lambda result, at: got.append(time.monotonic()), max_wait=0.2)
        handle.push_audio(sound(0.5, 0), RATE, 0.0)
        begin = time.monotonic()
        handle.push_frame(pictures(1, 0)[0], 10.0)
        while not got and time.monotonic() < begin + 60:
            time.sleep(0.01)
    assert 0.15 <= got[0] - begin <= 10.0


def test_each_result_says_what_was_dropped_since_the_one_before(engine: Any) -> None:
    slow = SlowEngine(engine, 0.1)
    found: list[tuple[int, int]] = []
    with MultiStream(slow, max_batch=1) as multi:
        handle = multi.open(lambda result, at: found.append((at, result.dropped)))
        handle.end_audio()
        for at in range(50):
            handle.push_frame(pictures(1, at)[0], at / 50, at)
            time.sleep(0.02)
        assert handle.finish(60.0)
    numbers, dropped = ([entry[part] for entry in found] for part in (0, 1))
    assert dropped == [int(step) - 1 for step in np.diff([-1, *numbers])]
    assert sum(dropped) == handle.stats.dropped > 10


def test_who_is_behind_hears_the_newest_window_first(engine: Any) -> None:
    """While a slow window is heard, frames of many later ones come: the latest is next, not the oldest."""
    slow = Heard(engine, 0.0)
    ramp = (np.arange(4 * RATE) / (4 * RATE)).astype(np.float32)
    with MultiStream(slow, max_batch=1) as multi:
        slow.ends.clear()
        handle = multi.open(lambda result, at: None, max_wait=5.0)
        handle.push_audio(ramp, RATE, 0.0)
        handle.end_audio()
        slow.hear.clear()
        handle.push_frame(pictures(1, 0)[0], 1.0)
        until(lambda: slow.ends)
        already = len(slow.ends)
        for at in range(10):
            handle.push_frame(pictures(1, at)[0], 1.2 + 0.2 * at)
        slow.hear.set()
        until(lambda: len(slow.ends) > already)
        after = slow.ends[already]
        handle.close()
    # the window that ends at 3.0 s of a ramp of 4 s
    assert after == pytest.approx(3.0 / 4, abs=0.02)


def test_the_last_frames_are_not_passed_over_for_newer_ones(engine: Any) -> None:
    """A live stream whose engine was behind when it ended: what is in line then has its result."""
    held = Heard(engine, 0.0)
    found: list[int] = []
    with MultiStream(held, max_batch=1) as multi:
        handle = multi.open(lambda result, at: found.append(at))
        handle.end_audio()
        held.go.clear()
        held.entered.clear()
        for at in range(9):
            handle.push_frame(pictures(1, at)[0], at / 100, at)
            # the first one is on its way before the others come
            assert held.entered.wait(60)
        # long enough for all of them to be stale
        time.sleep(0.6)
        assert handle.stats.dropped == 0
        threading.Timer(0.3, held.go.set).start()
        assert handle.finish(60.0)
    assert found == list(range(9)) and handle.stats.dropped == 0


def test_sound_that_is_not_finite_is_told_of_once_also_live(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    got: list[int] = []
    with MultiStream(engine) as multi, caplog.at_level("WARNING", "avgn.runtime"):
        handle = multi.open(lambda result, at: got.append(at), lossless=True)
        bad = sound(1.0, 0)
        bad[[5, 900]] = np.nan, np.inf
        handle.push_audio(bad, RATE, 0.0)
        handle.push_audio(bad, RATE, 1.0)
        handle.push_frame(pictures(1, 0)[0], 1.5, 0)
        assert handle.finish(60.0) and got == [0]
        assert handle.warnings() == ["4 audio samples were not finite and counted as silence"]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["the sound holds samples that are not finite (from 0.00 s on): they count as silence"]


def test_sound_may_come_again_after_its_end(engine: Any) -> None:
    """A camera that was lost and is there again: frames wait for its sound as before."""
    got: list[Result] = []
    with MultiStream(engine) as multi:
        handle = multi.open(lambda result, at: got.append(result), lossless=True)
        handle.push_audio(sound(1.0, 0), RATE, 0.0)
        handle.end_audio()
        handle.push_audio(sound(1.0, 0), RATE, 2.0)
        handle.push_frame(pictures(1, 0)[0], 4.0)
        time.sleep(0.3)
        assert not got
        handle.push_audio(sound(1.1, 0), RATE, 3.0)
        assert handle.finish(60.0)
        # after finish() sound is taken, and no frame waits for more of it
        handle.push_audio(sound(0.1, 0), RATE, 5.0)
        handle.push_frame(pictures(1, 0)[0], 9.0)
        assert handle.finish(60.0)
    assert [result.time for result in got] == [4.0, 9.0] and got[0].loudness_db > -60


def test_the_decisions_constants_are_those_that_were_given(engine: Any) -> None:
    """Where everything counts as silence nothing is a source, and what is not known is said at once."""
    config = DecisionConfig(silence_db=20.0, unknown_db=-200.0, unknown_seconds=0.0)
    got: list[Result] = []
    with MultiStream(engine, decision=config) as multi:
        handle = multi.open(lambda result, at: got.append(result), lossless=True)
        handle.push_audio(sound(1.0, 0), RATE, 0.0)
        handle.push_frame(pictures(1, 0)[0], 0.5)
        assert handle.finish(60.0)
    assert [(result.state, result.sources) for result in got] == [("unknown", ())]


@tried_again
def test_a_frame_waits_a_quarter_of_a_second_for_its_sound_unless_asked_otherwise(engine: Any) -> None:
    got: list[float] = []
    with MultiStream(engine) as multi:
        handle = multi.open(lambda result, at: got.append(time.monotonic()))
        handle.push_audio(sound(0.5, 0), RATE, 0.0)
        begin = time.monotonic()
        handle.push_frame(pictures(1, 0)[0], 10.0)
        until(lambda: got)
    assert 0.25 <= got[0] - begin < 1.5
