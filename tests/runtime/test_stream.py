"""Streaming equals an independent brute-force loop over windows and frames, however the input is cut."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from avgn.runtime import InputError, Localizer, Result, StreamLocalizer
from avgn.runtime.arrays import Floats
from avgn.runtime.audio import resample
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.image import resize
from tests.runtime.clips import Scene
from tests.runtime.graphs import CLASSES, RATE, TONES, write_bundle

HOP, WINDOW = 4410, 22050
TOLERANCE = 1e-5


def sound(seconds: float, rate: int) -> Floats:
    """Tones that come and go, over noise: every window differs."""
    time = np.arange(round(seconds * rate)) / rate
    gates = [np.sin(2 * np.pi * time / period) > 0 for period in (0.9, 1.7, 2.3)]
    tones = sum(0.2 * gate * np.sin(2 * np.pi * f * time) for gate, f in zip(gates, TONES, strict=True))
    return (tones + np.random.default_rng(5).normal(0, 0.01, len(time))).astype(np.float32)


def pictures(times: list[float]) -> list[npt.NDArray[np.uint8]]:
    def scene(time: float) -> Scene:
        if time % 1 >= 0.7:
            return Scene(seen={2: (0.5, 0.5)})
        return Scene(seen={0: (0.3 + 0.1 * math.sin(time), 0.4), 1: (0.7, 0.3 + 0.1 * time)})

    return [scene(time).frame() for time in times]


def brute_force(
    localizer: Localizer, signal: Floats, rate: int, frames: list[Any], times: list[float], mode: str
) -> list[dict[str, Any]]:
    """Every frame by itself, from the whole signal: no stream, no cache, no batch."""
    whole = resample(signal, rate, RATE)
    out = []
    for rgb, time in zip(frames, times, strict=True):
        if mode == "live":
            ends = [k for k in range(0, 1000) if k * HOP <= time * RATE + 1e-3]
            index = ends[-1]
        else:
            distance = [abs((k * HOP - WINDOW / 2) / RATE - time) for k in range(0, 1000)]
            index = next(k for k in range(1000) if distance[k] <= min(distance) + 1e-7)
        window = np.zeros(WINDOW, np.float32)
        for n in range(WINDOW):
            at = index * HOP - WINDOW + n
            if 0 <= at < len(whole):
                window[n] = whole[at]
        heard = localizer.engine.run_audio(window[None])
        seen = localizer.engine.run_image(resize(rgb, localizer.bundle.image_size)[None], heard["sources"])
        out.append({"window": index, "audio_prob": heard["audio_prob"][0]} | {name: v[0] for name, v in seen.items()})
    return out


def run(
    stream: StreamLocalizer, signal: Floats, rate: int, frames: list[Any], times: list[float], chunks: Iterator[int]
) -> list[Result]:
    """Push sound in chunks; frames go in when the sound has passed them, so that both are ragged."""
    results, at, shown = [], 0, 0
    while at < len(signal):
        count = next(chunks)
        results += stream.push_audio(signal[at : at + count], rate, at / rate)
        at += count
        while shown < len(frames) and times[shown] <= at / rate:
            results += stream.push_frame(frames[shown], times[shown])
            shown += 1
    for rgb, time in zip(frames[shown:], times[shown:], strict=True):
        results += stream.push_frame(rgb, time)
    return results + stream.flush()


def ragged(seed: int, limit: int = 5000) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(1, limit + 1))


def same(results: list[Result], expected: list[dict[str, Any]]) -> None:
    assert len(results) == len(expected)
    for result, truth in zip(results, expected, strict=True):
        assert result.window == truth["window"]
        for name in ("audio_prob", "visual_prob", "maps"):
            assert np.abs(getattr(result, name) - truth[name]).max() <= TOLERANCE


# frames at uneven times, beyond the end of the sound, some on the very edge of a window
TIMES = [0.0, 0.04, 0.1, 0.2, 0.21, 0.55, 0.6, 0.7, 1.0, 1.001, 1.3, 1.37, 1.8, 2.0, 2.02, 2.5, 2.9, 3.4]


@pytest.mark.parametrize("mode", ["live", "file"])
@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_streaming_equals_brute_force(localizer: Localizer, mode: Any, rate: int) -> None:
    signal, frames = sound(2.6, rate), pictures(TIMES)
    expected = brute_force(localizer, signal, rate, frames, TIMES, mode)
    spread = np.ptp([truth["audio_prob"] for truth in expected], axis=0)
    assert spread.max() > 0.9, "the test sound must tell windows apart"
    reference: list[Any] | None = None
    for batch, chunks in ((1, ragged(1)), (3, ragged(2)), (8, ragged(3)), (1, iter([10**6])), (3, ragged(4, 97))):
        results = run(localizer.open_stream(mode=mode, batch=batch), signal, rate, frames, TIMES, chunks)
        same(results, expected)
        said = [[(source.label, source.on_screen) for source in result.sources] for result in results]
        reference = reference or said
        assert said == reference
    assert {source.on_screen for result in results for source in result.sources} == {True, False}


def test_single_samples_and_frames_first(localizer: Localizer) -> None:
    signal, times = sound(0.3, 22050), [0.0, 0.1, 0.2, 0.25]
    frames = pictures(times)
    expected = brute_force(localizer, signal, 22050, frames, times, "file")
    same(run(localizer.open_stream(mode="file"), signal, 22050, frames, times, iter([1] * 7000)), expected)
    stream = localizer.open_stream(mode="file", batch=3)
    results = [r for rgb, t in zip(frames, times, strict=True) for r in stream.push_frame(rgb, t)]
    assert results == []
    results = stream.push_audio(signal, 22050, 0.0) + stream.flush()
    same(results, expected)


def test_reset_starts_afresh(localizer: Localizer) -> None:
    signal, frames = sound(1.0, 44100), pictures([0.0, 0.5, 0.9])
    stream = localizer.open_stream(mode="file")
    first = run(stream, signal, 44100, frames, [0.0, 0.5, 0.9], ragged(1))
    with pytest.raises(RuntimeError, match="call reset"):
        stream.push_frame(frames[0], 1.0)
    stream.reset()
    second = run(stream, signal, 44100, frames, [0.0, 0.5, 0.9], ragged(2))
    for a, b in zip(first, second, strict=True):
        assert a.sources == b.sources
        assert np.array_equal(a.maps, b.maps) and a.frame == b.frame


def test_a_window_is_computed_once_and_only_when_needed(localizer: Localizer) -> None:
    stream = localizer.open_stream(mode="live")
    signal = sound(3.0, 22050)
    stream.push_audio(signal, 22050, 0.0)
    assert stream.state.windows == 0
    for number in range(30):
        stream.push_frame(Scene().frame(), 1.0 + number / 30)
    assert stream.state.windows == 5


def test_old_sound_is_let_go(localizer: Localizer) -> None:
    stream = localizer.open_stream(mode="live")
    for second in range(20):
        stream.push_audio(np.zeros(22050, np.float32), 22050, float(second))
        stream.push_frame(Scene().frame(), second + 0.9)
    held = sum(samples.size for _, samples in stream.state.clock._segments)
    assert held <= 4 * 22050


def test_a_live_frame_does_not_wait_longer_than_told(localizer: Localizer) -> None:
    stream = StreamLocalizer(localizer.engine, mode="live", max_wait=0.3)
    results = [r for n in range(10) for r in stream.push_frame(Scene().frame(), n / 10)]
    assert len(results) >= 6
    assert len(StreamLocalizer(localizer.engine, mode="live").push_frame(Scene().frame(), 5.0)) == 0


def test_sound_that_changes_its_rate(localizer: Localizer) -> None:
    stream = localizer.open_stream(mode="file")
    scene = Scene(seen={0: (0.5, 0.5)}, heard=(0,))
    stream.push_audio(scene.sound(1.0, 44100), 44100, 0.0)
    stream.push_audio(scene.sound(1.0, 48000, 2), 48000, 1.0)
    results = [r for n in range(20) for r in stream.push_frame(scene.frame(), n / 10)] + stream.flush()
    assert all(r.audio_prob[0] > 0.9 for r in results[3:17])
    assert stream.state.clock.end == pytest.approx(2 * RATE, abs=2)


def test_nan_and_clipped_sound_are_reported(localizer: Localizer, caplog: pytest.LogCaptureFixture) -> None:
    signal = Scene(heard=(0,)).sound(1.0, 22050)[:, 0]
    signal[100:200] = np.nan
    stream = localizer.open_stream(mode="file")
    results = stream.push_frame(Scene(seen={0: (0.5, 0.5)}).frame(), 0.5)
    results += stream.push_audio(signal, 22050, 0.0)
    results += stream.push_audio(signal * 20, 22050, 1.0) + stream.flush()
    assert np.isfinite(results[0].maps).all() and results[0].sources[0].label == "red"
    assert len([r for r in caplog.records if "not finite" in r.message]) == 1
    first, second = stream.warnings()
    assert first == "200 audio samples were not finite and counted as silence"
    assert second.startswith("the sound is clipped (")


def test_wrong_arguments(localizer: Localizer) -> None:
    with pytest.raises(ValueError, match='mode must be "live" or "file"'):
        localizer.open_stream(mode="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        localizer.open_stream(batch=0)
    stream = localizer.open_stream()
    with pytest.raises(ValueError, match="time must be finite"):
        stream.push_frame(Scene().frame(), float("nan"))
    with pytest.raises(ValueError, match="claims a sample rate of 0 Hz: sound of 1000 to 768000 Hz can be used"):
        stream.push_audio(np.zeros(5, np.float32), 0, 0.0)
    with pytest.raises(InputError, match="decision.release must be above 0"):
        DecisionConfig(release=0)


def test_without_presence_heads_the_map_decides(tmp_path: Path) -> None:
    localizer = Localizer.load(write_bundle(tmp_path / "b", has_presence=False), threads=1)
    scene = Scene(seen={0: (0.3, 0.4), 1: (0.8, 0.5)}, heard=(0,))
    stream = localizer.open_stream(mode="file")
    stream.push_audio(scene.sound(2.0, 22050), 22050, 0.0)
    (result,) = stream.push_frame(scene.frame(), 1.0)
    assert [s.label for s in result.sources] == ["red"] and result.state == "source"
    assert result.audio_prob.tolist() == [1, 1, 1]
    (result,) = stream.push_frame(Scene().frame(), 1.4)
    assert [s.label for s in result.sources] == ["red"]
    silent = localizer.open_stream(mode="file")
    silent.push_audio(np.zeros(44100, np.float32), 22050, 0.0)
    (result,) = silent.push_frame(scene.frame(), 1.0)
    assert result.state == "none" and not result.sources


def test_a_new_source_shows_soon_after_its_window_fills(localizer: Localizer) -> None:
    scene = Scene(seen={0: (0.5, 0.5)}, heard=(0,))
    stream = localizer.open_stream(mode="live")
    stream.push_audio(np.zeros(44100, np.float32), 22050, 0.0)
    stream.push_audio(scene.sound(3.0, 22050), 22050, 2.0)
    results = [r for n in range(140) for r in stream.push_frame(scene.frame(), n / 30)]
    first = next(r.time for r in results if r.state == "source")
    assert 2.0 < first <= 3.0 + 0.4
    assert all(r.state == "source" for r in results if r.time > 3.4)
    assert all(r.state == "none" for r in results if r.time < 2.0)


def test_result_line(localizer: Localizer) -> None:
    scene = Scene(seen={0: (0.3, 0.4)}, heard=(0, 2))
    at_once = DecisionConfig(off_screen_seconds=0.0)
    stream = localizer.open_stream(mode="file", decision=at_once)
    stream.push_audio(scene.sound(2.0, 22050), 22050, 0.0)
    (result,) = stream.push_frame(scene.frame(), 1.0, dropped=3)
    line = result.to_json()
    assert set(line) == {"time", "frame", "state", "sources", "ms", "dropped"} and line["dropped"] == 3
    red, blue = line["sources"]
    assert set(red) == {"label", "certainty", "audio_prob", "visual_prob", "on_screen", "peak", "box"}
    assert red["on_screen"] and not blue["on_screen"] and blue["peak"] is None and blue["box"] is None
    assert red["peak"] == pytest.approx([0.3, 0.4], abs=0.06)
    x1, y1, x2, y2 = red["box"]
    assert x1 < 0.3 < x2 and y1 < 0.4 < y2 and x2 - x1 < 0.6
    assert CLASSES[0] == red["label"]
    plotted = result.plot(scene.frame())
    assert plotted.shape == scene.frame().shape and (plotted != scene.frame()).any()


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_a_frame_on_the_edge_of_a_live_window_uses_it(localizer: Localizer, rate: int) -> None:
    """Times that are sums of frame durations fall short of the edge by a rounding error."""
    stream = localizer.open_stream(mode="live")
    time, short = 0.0, 0
    for number in range(1, 6000):
        time += 1 / 30
        edge = number % 6 == 0
        exact = number // 6
        short += edge and time * RATE / HOP < exact
        if edge:
            assert stream.window_of(time) == exact
        # between two edges it is the earlier one
        assert stream.window_of(exact * 0.2 + 0.1999) == exact
    assert short > 100, "the sums must fall short somewhere"


def test_sound_before_a_small_step_back_is_still_there(localizer: Localizer) -> None:
    """A timestamp that steps back hears the sound of its own time, up to a window's length ago."""
    signal = sound(4.0, RATE)
    times = [3.0, 2.2, 3.1, 2.15]
    frames = pictures(times)
    stream = localizer.open_stream(mode="live")
    results: list[Result] = []
    for at in range(0, len(signal), 5000):
        results += stream.push_audio(signal[at : at + 5000], RATE, at / RATE)
    for rgb, time in zip(frames, times, strict=True):
        results += stream.push_frame(rgb, time)
    same(results + stream.flush(), brute_force(localizer, signal, RATE, frames, times, "live"))


def test_clipped_samples_of_all_blocks_count(localizer: Localizer) -> None:
    stream = localizer.open_stream(mode="live")
    loud, quiet = np.ones(1000, np.float32), np.zeros(9000, np.float32)
    for number, block in enumerate((loud, quiet, loud, quiet)):
        stream.push_audio(block, RATE, (0, 1000, 10000, 11000)[number] / RATE)
    clock = stream.state.clock
    assert clock.clipped == 2000 and clock.samples_in == 20000
    assert stream.warnings() == ["the sound is clipped (10.0 % of its samples at full scale): results may suffer"]
