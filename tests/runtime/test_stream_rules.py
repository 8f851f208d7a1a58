"""A stream's rules one by one, with an engine that says what it was given: quick enough for every small change."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np
import pytest

from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import BundleInfo, Thresholds
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.result import Result
from avgn.runtime.stream import CLIPPED_SHARE, SLACK, AudioWindow, Pending, State, StreamLocalizer

RATE, HOP, WINDOW = 1000, 200, 500
GREY = np.full((32, 32, 3), 7, np.uint8)
# sample n of the sound is n / 10,000: a window says by itself where it lies
SOUND = (np.arange(1, 20_001) / 40_000).astype(np.float32)


class Tells:
    """Gives back the first and the last sample of a window as its sources and the picture's grey as its map."""

    name = "tells"

    def __init__(self, **facts: Any) -> None:
        self.info = BundleInfo(
            **{
                "model": {},
                "classes": ("a", "b"),
                "sample_rate": RATE,
                "window_seconds": WINDOW / RATE,
                "image_size": (32, 32),
                "grid": (1, 1),
                "thresholds": Thresholds(audio=(0.5, 0.5), visual=(0.5, 0.5)),
                "variants": (),
                **facts,
            }
        )
        self.heard: list[Array] = []
        self.seen: list[tuple[Array, Array]] = []

    def run_audio(self, waveform: Array) -> dict[str, Array]:
        assert waveform.shape[1:] == (WINDOW,) and len(waveform) == 1
        self.heard.append(waveform[0].copy())
        ends = waveform[:, [0, -1]]
        return {"sources": ends[:, :, None], "audio_prob": np.abs(ends)}

    def run_image(self, image: Array, sources: Array) -> dict[str, Array]:
        self.seen.append((image[:, 0, 0, 0].copy(), sources[:, :, 0].copy()))
        maps = (image[:, :1, :1, :1] / 255 * np.ones((1, 2, 1, 1))).astype(np.float32)
        return {"maps": maps, "visual_prob": np.stack([image[:, 0, 0, 0] / 255] * 2, axis=1).astype(np.float32)}


def stream_of(**options: Any) -> tuple[StreamLocalizer, Tells]:
    engine = Tells()
    return StreamLocalizer(engine, **options), engine  # type: ignore[arg-type]


def frame(number: int) -> Array:
    return np.full((32, 32, 3), number, np.uint8)


def window(index: int) -> Array:
    """Samples [index * HOP - WINDOW, index * HOP) of SOUND, zeros before it."""
    at = index * HOP - WINDOW + np.arange(WINDOW)
    return np.where((at >= 0) & (at < len(SOUND)), SOUND[np.clip(at, 0, len(SOUND) - 1)], 0).astype(np.float32)


@pytest.mark.parametrize(("mode", "expected"), [("live", 0.05), ("file", 0.4)])
def test_how_much_sound_a_frame_waits_for(mode: Any, expected: float) -> None:
    stream, _ = stream_of(mode=mode)
    # a file's frame lies in the middle of its window, which may end half a hop later
    assert stream.lookahead == pytest.approx(expected)
    assert (stream.batch, stream.max_wait, stream.mode) == (1, None, mode)
    assert StreamLocalizer(Tells()).mode == "live"  # type: ignore[arg-type]


def test_the_window_of_a_frame() -> None:
    live, file = stream_of(mode="live")[0], stream_of(mode="file")[0]
    # live: the last one that ends at or before the frame, to a millionth of a hop
    times = (0.0, 0.19999, 0.2, 0.2 - 1e-8, 0.2 - 1e-6, 0.39, 0.4, 7.6)
    assert [live.window_of(time) for time in times] == [0, 0, 1, 1, 0, 1, 2, 38]
    # file: the one whose centre, k * 0.2 - 0.25, is nearest; of two the earlier one
    middles = (-0.05, 0.0, 0.05, 0.05 + 1e-8, 0.0501, 0.15, 0.25, 0.2501, 1.0)
    assert [file.window_of(time) for time in middles] == [1, 1, 1, 1, 2, 2, 2, 3, 6]
    assert SLACK == 1e-6


def test_what_waits_and_what_was_heard_are_frozen_and_named() -> None:
    kinds: tuple[Any, ...] = (Pending, AudioWindow)
    for kind in kinds:
        # arrays have no equality that is one truth
        assert kind.__dataclass_params__.frozen and not kind.__dataclass_params__.eq
    assert all(each.kw_only for kind in (*kinds, State) for each in dataclasses.fields(kind))


def test_a_live_frame_comes_when_its_window_has() -> None:
    first, _ = stream_of(mode="live")
    assert first.push_frame(frame(1), 0.25) == [] and len(first.push_audio(SOUND[:200], RATE, 0.0)) == 1
    stream, engine = stream_of(mode="live")
    assert stream.push_frame(frame(1), 0.45) == []
    assert stream.push_audio(SOUND[:399], RATE, 0.0) == []
    (result,) = stream.push_audio(SOUND[399:400], RATE, 0.399)
    assert result.window == 2 and result.time == 0.45 and result.frame == 0
    assert np.array_equal(engine.heard[0], window(2))
    # a window before all sound is nothing, and waited for by nobody
    early, engine = stream_of(mode="live")
    (result,) = early.push_frame(frame(1), 0.1)
    assert result.window == 0 and not engine.heard[0].any() and result.loudness_db == -200.0


def test_a_window_is_heard_once_and_goes_to_each_of_its_frames() -> None:
    stream, engine = stream_of(mode="live", batch=3)
    stream.push_audio(SOUND[:2000], RATE, 0.0)
    results = [r for n, t in enumerate((0.6, 0.7, 0.8, 0.9, 1.0, 1.05)) for r in stream.push_frame(frame(n), t)]
    assert [r.window for r in results] == [3, 3, 4, 4, 5, 5] and stream.state.windows == len(engine.heard) == 3
    assert [len(grey) for grey, _ in engine.seen] == [3, 3]
    for result in results:
        ends = window(result.window)[[0, -1]]
        np.testing.assert_allclose(result.audio_prob, ends)
        np.testing.assert_allclose(result.visual_prob, result.frame / 255, rtol=1e-6)
        np.testing.assert_allclose(result.maps[:, 0, 0], result.frame / 255, rtol=1e-6)
    np.testing.assert_allclose(
        np.concatenate([s for _, s in engine.seen]), [window(r.window)[[0, -1]] for r in results]
    )
    # the time of the audio half counts for the frame that it was run for alone
    assert [r.ms["audio"] > 0 for r in results] == [True, False, True, False, True, False]
    assert all(r.ms["audio"] == 0.0 for r in results[1::2])
    assert set(results[0].ms) == {"resize", "audio", "image", "decide"} and all(r.ms["image"] > 0 for r in results)
    assert results[0].ms["image"] == results[1].ms["image"] == results[2].ms["image"]


class Slow(Tells):
    """Takes twenty milliseconds for pictures."""

    def run_image(self, image: Array, sources: Array) -> dict[str, Array]:
        time.sleep(0.02)
        return super().run_image(image, sources)


def test_the_time_of_a_batch_is_divided_among_its_frames() -> None:
    stream = StreamLocalizer(Slow(), batch=3)  # type: ignore[arg-type]
    begin = time.perf_counter()
    results = [r for n in range(3) for r in stream.push_frame(frame(n), 0.0)]
    whole = 1000 * (time.perf_counter() - begin)
    assert 20 <= sum(r.ms["image"] for r in results) <= whole


def test_batches_wait_until_they_are_full_and_a_flush_runs_the_rest() -> None:
    stream, engine = stream_of(mode="live", batch=4)
    stream.push_audio(SOUND[:3000], RATE, 0.0)
    found = [len(stream.push_frame(frame(n), 1.0 + n / 10)) for n in range(10)]
    assert found == [0, 0, 0, 4, 0, 0, 0, 4, 0, 0]
    assert [r.frame for r in stream.flush()] == [8, 9] and [len(grey) for grey, _ in engine.seen] == [4, 4, 2]
    assert stream.state.clock.closed and stream.state.flushed
    # neither sound nor its end runs a batch that is not full: more frames may come
    early, _ = stream_of(mode="live", batch=4)
    assert early.push_frame(frame(0), 0.5) == early.push_audio(SOUND[:1000], RATE, 0.0) == early.end_audio() == []
    assert [r.frame for r in early.flush()] == [0]
    # a single frame a batch is a batch
    assert len(stream_of(batch=1)[0].push_frame(GREY, 0.0)) == 1


def test_a_frame_waits_for_those_before_it() -> None:
    stream, _ = stream_of(mode="live")
    stream.push_audio(SOUND[:500], RATE, 0.0)
    assert stream.push_frame(frame(0), 0.9) == []
    # its own window has come, but the frame before it still waits
    assert stream.push_frame(frame(1), 0.3) == []
    assert [r.frame for r in stream.push_audio(SOUND[500:900], RATE, 0.5)] == [0, 1]


def test_a_frame_waits_no_longer_than_told() -> None:
    stream, engine = stream_of(mode="live", max_wait=0.25)
    stream.push_audio(SOUND[:100], RATE, 0.0)
    found = [[r.frame for r in stream.push_frame(frame(n), 1.0 + t)] for n, t in enumerate((0.0, 0.2, 0.2499, 0.25))]
    assert found == [[], [], [], [0]]
    assert [r.frame for r in stream.push_frame(frame(4), 1.46)] == [1]
    # it takes the sound that is there, which is none of its window
    assert not engine.heard[0].any()
    assert stream_of(mode="live", max_wait=None)[0].push_frame(GREY, 100.0) == []


def test_ended_sound_is_silence_from_there_on() -> None:
    stream, engine = stream_of(mode="live")
    stream.push_audio(SOUND[:1000], RATE, 0.0)
    assert stream.push_frame(frame(0), 1.2) == []
    (result,) = stream.end_audio()
    assert (
        result.window == 6
        and np.array_equal(engine.heard[0][:300], window(6)[:300])
        and not engine.heard[0][300:].any()
    )
    assert stream.end_audio() == [] and len(stream.push_frame(frame(1), 9.0)) == 1
    with pytest.raises(RuntimeError, match="the sound of this stream was ended: call reset"):
        stream.push_audio(SOUND[:10], RATE, 1.0)
    stream.flush()
    for call in (lambda: stream.push_audio(SOUND[:10], RATE, 1.0), lambda: stream.push_frame(GREY, 9.1)):
        with pytest.raises(RuntimeError, match="this stream was flushed: call reset"):
            call()
    stream.reset()
    assert stream.state.frames == stream.state.windows == 0 and stream.state.window is None
    assert not stream.state.flushed and not stream.state.warned and not stream.state.pending
    assert stream.push_frame(GREY, 0.0)[0].frame == 0


def test_frames_are_numbered_as_they_come_and_carry_what_was_dropped() -> None:
    stream, _ = stream_of(mode="live")
    first = stream.take_frame(np.zeros((64, 48, 3), np.uint8), 0.05, dropped=2)
    assert (first.number, first.window, first.dropped, first.image.shape) == (0, 0, 2, (32, 32, 3))
    assert not stream.state.pending and stream.state.frames == 1
    (result,) = stream.push_frame(frame(3), 0.1, dropped=5)
    assert result.frame == 1 and result.dropped == 5 and result.ms["resize"] >= 0
    assert stream.push_frame(GREY, 0.1)[0].dropped == 0 and stream.take_frame(GREY, 0.1).dropped == 0
    for wrong in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(ValueError, match="a frame's time must be finite seconds"):
            stream.take_frame(GREY, wrong)


def test_a_windows_length_before_the_window_is_kept_and_no_more() -> None:
    stream, _ = stream_of(mode="live")
    for at in range(0, 20_000, 5000):
        stream.push_audio(SOUND[at : at + 5000], RATE, at / RATE)
    stream.push_frame(GREY, 16.0)
    # [15,500, 16,000) is heard: what ends at or before 15,000 is gone
    assert [first for first, _ in stream.state.clock._segments] == [15_000]
    again, _ = stream_of(mode="live")
    for at in range(0, 20_000, 5000):
        again.push_audio(SOUND[at : at + 5000], RATE, at / RATE)
    again.push_frame(GREY, 15.8)
    assert [first for first, _ in again.state.clock._segments] == [10_000, 15_000]
    assert np.array_equal(again.cut_window(79).waveform, window(79))


def test_what_is_wrong_with_the_sound_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    stream, _ = stream_of(mode="live")
    assert stream.warnings() == []
    bad = np.zeros(1000, np.float32)
    with caplog.at_level(logging.WARNING, "avgn.runtime"):
        stream.push_audio(bad, RATE, 0.0)
        assert not caplog.records and not stream.state.warned
        bad[3] = np.nan
        stream.push_audio(bad, RATE, 1.0)
        stream.push_audio(bad, RATE, 2.0)
    (record,) = caplog.records
    assert record.getMessage() == "the sound holds samples that are not finite (from 1.00 s on): they count as silence"
    assert stream.warnings() == ["2 audio samples were not finite and counted as silence"]


def test_clipping_is_told_from_a_thousandth_of_the_samples_on() -> None:
    assert CLIPPED_SHARE == 0.001
    half, _ = stream_of(mode="live")
    half.push_audio(np.repeat(np.array([0, 1], np.float32), 500), RATE, 0.0)
    assert half.warnings() == ["the sound is clipped (50.0 % of its samples at full scale): results may suffer"]
    for clipped, said in (
        (4, []),
        (5, ["the sound is clipped (0.1 % of its samples at full scale): results may suffer"]),
    ):
        stream, _ = stream_of(mode="live")
        loud = np.zeros(4000, np.float32)
        loud[:clipped] = 1.0
        stream.push_audio(loud, RATE, 0.0)
        assert stream.warnings() == said


def test_results_hold_the_decision_of_their_own_frame() -> None:
    at_once = DecisionConfig(audio_smoothing=0, visual_smoothing=0, min_off=0, off_screen_seconds=0)
    stream, _ = stream_of(mode="live", decision=at_once)
    assert stream.rules.config is at_once
    stream.push_audio(SOUND[:20_000] * 1.9, RATE, 0.0)
    results: list[Result] = [
        r for n, t in ((200, 19.0), (200, 19.2), (20, 19.4)) for r in stream.push_frame(frame(n), t)
    ]
    assert [r.state for r in results] == ["source", "source", "off-screen"]
    assert [[s.label for s in r.sources] for r in results] == [["a", "b"]] * 3
    for result in results:
        level = 20 * np.log10(np.sqrt(np.mean((1.9 * window(result.window)) ** 2)))
        assert result.loudness_db == pytest.approx(level, abs=0.01)
    # a bundle's own constants hold unless others are given
    own = StreamLocalizer(Tells(decision={"min_on": 0.5}))  # type: ignore[arg-type]
    assert own.rules.config == DecisionConfig(min_on=0.5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [({"mode": "both"}, 'mode must be "live" or "file"'), ({"batch": 0}, "batch must be at least 1, got 0")],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        stream_of(**options)
