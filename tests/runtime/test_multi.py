"""Several streams on one engine: results as alone, nobody starves, nobody harms the others."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from avgn.runtime import Bundle, Localizer, Result, StreamLocalizer
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.frame_queue import QUEUED
from avgn.runtime.multi import MultiStream
from tests.patience import tried_again, until
from tests.runtime.graphs import RATE

SIZE = (96, 128)


def sound(seconds: float, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * (440.0, 1320.0, 3100.0)[seed % 3] * np.arange(int(seconds * RATE)) / RATE)
    return (0.3 * tone + 0.01 * rng.standard_normal(tone.size)).astype(np.float32)


def pictures(count: int, seed: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def engine(bundle_path: Any) -> Any:
    return Localizer.load(Bundle.load(bundle_path), threads=1).engine


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


class SlowEngine:
    """The real engine, on a machine that takes `seconds` for a batch of pictures."""

    name = "slow"

    def __init__(self, engine: Any, seconds: float) -> None:
        self.engine, self.seconds, self.info = engine, seconds, engine.info
        self.batches: list[int] = []

    def run_audio(self, waveform: Any) -> Any:
        return self.engine.run_audio(waveform)

    def run_image(self, image: Any, sources: Any) -> Any:
        self.batches.append(len(image))
        time.sleep(self.seconds)
        return self.engine.run_image(image, sources)


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


class Heard:
    """The real engine, on a machine that takes `seconds` for a batch of sounds; notes the batches, and their ends.

    `ends`: the windows' last samples, which tell their times where the sound is a ramp.
    """

    name = "heard"

    def __init__(self, engine: Any, seconds: float) -> None:
        self.engine, self.seconds, self.info = engine, seconds, engine.info
        self.batches: list[int] = []
        self.ends: list[float] = []
        self.go, self.entered = threading.Event(), threading.Event()
        self.hear = threading.Event()
        self.go.set()
        self.hear.set()

    def run_audio(self, waveform: Any) -> Any:
        self.batches.append(len(waveform))
        self.ends += [float(row[-1]) for row in waveform]
        time.sleep(self.seconds)
        assert self.hear.wait(60)
        return self.engine.run_audio(waveform)

    def run_image(self, image: Any, sources: Any) -> Any:
        self.entered.set()
        assert self.go.wait(60)
        return self.engine.run_image(image, sources)


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
