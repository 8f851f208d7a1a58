from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from avgn.runtime.decision import Decision, DecisionConfig, DecisionState, Rules, step
from avgn.runtime.regions import peak_of, region_box

MAPS = np.zeros((2, 7, 7), np.float32)
MAPS[0, 2, 5] = MAPS[1, 4, 1] = 1


def rules(has_presence: bool = True, **config: float) -> Rules:
    half = np.full(2, 0.5, np.float32)
    return Rules(
        config=DecisionConfig(**config),
        classes=("cat", "dog"),
        audio_thresholds=half,
        visual_thresholds=half,
        has_presence=has_presence,
    )


def run(
    given: Rules, audio: list[list[float]], visual: list[list[float]], loud: float = -20.0, every: float = 0.1
) -> list[Decision]:
    state, out = DecisionState.start(2), []
    for number, (heard, seen) in enumerate(zip(audio, visual, strict=True)):
        state, decision = step(
            given,
            state,
            time=number * every,
            audio_prob=np.array(heard, np.float32),
            visual_prob=np.array(seen, np.float32),
            maps=MAPS,
            loudness_db=loud,
        )
        out.append(decision)
    return out


def states(decisions: list[Decision]) -> list[str]:
    return [decision.state for decision in decisions]


def test_the_four_states() -> None:
    (on,) = run(rules(), [[0.9, 0.1]], [[0.9, 0.1]])
    assert on.state == "source" and [(s.label, s.on_screen) for s in on.sources] == [("cat", True)]
    assert on.sources[0].peak == pytest.approx((5.5 / 7, 2.5 / 7))
    (off,) = run(rules(off_screen_seconds=0), [[0.9, 0.1]], [[0.1, 0.9]])
    assert off.state == "off-screen" and off.sources[0].peak is None and off.sources[0].map is None
    assert states(run(rules(), [[0.1, 0.1]] * 5, [[0.9, 0.9]] * 5)) == ["none"] * 3 + ["unknown"] * 2
    assert states(run(rules(), [[0.1, 0.1]] * 5, [[0.9, 0.9]] * 5, loud=-50)) == ["none"] * 5


def test_silence_is_no_source_whatever_the_heads_say() -> None:
    assert states(run(rules(), [[0.9, 0.9]] * 4, [[0.9, 0.9]] * 4, loud=-80)) == ["none"] * 4


def test_hysteresis_keeps_what_is_on() -> None:
    sharp = rules(audio_smoothing=0, visual_smoothing=0, min_off=0)
    seen = [[0.9, 0.0]] * 6
    heard = [[p, 0.0] for p in (0.4, 0.6, 0.4, 0.36, 0.3, 0.4)]
    assert states(run(sharp, heard, seen, loud=-50)) == ["none", "source", "source", "source", "none", "none"]


def test_minimum_durations() -> None:
    slow = rules(audio_smoothing=0, visual_smoothing=0, min_on=0.2, min_off=0.2, off_screen_seconds=0)
    heard = [[p, 0.0] for p in (0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1)]
    expected = ["off-screen" if on else "none" for on in (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0)]
    assert states(run(slow, heard, [[0.0, 0.0]] * 11, loud=-50)) == expected


def test_a_sound_that_is_never_seen_must_be_nearly_certain_for_a_while() -> None:
    given = rules(audio_smoothing=0, visual_smoothing=0, min_off=0)
    # 0.875 lies three quarters of the way from the threshold 0.5 to 1
    unsure = run(given, [[0.87, 0.0]] * 12, [[0.0, 0.0]] * 12)
    assert states(unsure) == ["none"] * 3 + ["unknown"] * 9
    sure = run(given, [[0.88, 0.0]] * 12, [[0.0, 0.0]] * 12)
    assert states(sure) == ["none"] * 3 + ["unknown"] * 3 + ["off-screen"] * 6
    # a dip begins the wait anew; once said, it holds as long as the class is on
    heard = [[p, 0.0] for p in (0.9, 0.9, 0.9, 0.9, 0.8, *(7 * [0.9]), 0.6, 0.6, 0.3, 0.9)]
    said = states(run(given, heard, [[0.0, 0.0]] * 16, loud=-50))
    assert said == ["none"] * 11 + ["off-screen"] * 3 + ["none"] * 2
    # what was seen while it sounded is known when it leaves the picture
    left = run(given, [[0.6, 0.0]] * 4, [[0.9, 0.0]] * 2 + [[0.0, 0.0]] * 2)
    assert states(left) == ["source", "source", "off-screen", "off-screen"]


@pytest.mark.parametrize("has_presence", [True, False], ids=["presence", "maps alone"])
def test_certainty_is_the_decisions_own(has_presence: bool) -> None:
    given = rules(has_presence, audio_smoothing=0, visual_smoothing=0, min_off=0.3)
    values = [0.5, 0.75, 1.0, 0.4, 0.12, 0.05, 0.9, 0.1, 0.1, 0.1, 0.1]
    expected = [0.5, 0.75, 1.0, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9, None]
    state, found = DecisionState.start(2), []
    for number, value in enumerate(values):
        probabilities = np.array([value, 0.0], np.float32)
        state, decision = step(
            given,
            state,
            time=number * 0.1,
            audio_prob=probabilities,
            visual_prob=np.array([0.9, 0.0], np.float32),
            maps=np.float32(value) * MAPS * np.array([1, 0], np.float32)[:, None, None],
            loudness_db=-20,
        )
        found.append(decision.sources[0].certainty if decision.sources else None)
    assert found == [None if value is None else pytest.approx(value, abs=1e-6) for value in expected]


def test_smoothing_takes_seconds_not_frames() -> None:
    reached: list[float] = []
    for every in (0.02, 0.1):
        count = round(0.4 / every)
        state = DecisionState.start(2)
        for number in range(count + 1):
            heard = np.array([float(number > 0), 0], np.float32)
            state, _ = step(
                rules(audio_smoothing=0.3),
                state,
                time=number * every,
                audio_prob=heard,
                visual_prob=heard,
                maps=MAPS,
                loudness_db=-20,
            )
        reached.append(float(state.audio.value[0]))
    assert reached[0] == pytest.approx(1 - np.exp(-0.4 / 0.3), abs=1e-5)
    assert reached[0] == pytest.approx(reached[1], abs=1e-5)


def test_step_changes_no_state() -> None:
    state = DecisionState.start(2)
    before = state.audio.value.copy()
    following, _ = step(
        rules(),
        state,
        time=0.0,
        audio_prob=np.ones(2, np.float32),
        visual_prob=np.ones(2, np.float32),
        maps=MAPS,
        loudness_db=-10,
    )
    assert np.array_equal(state.audio.value, before) and state.time is None and following is not state


def blob(x: float, y: float, size: tuple[int, int] = (7, 9), width: float = 0.12) -> npt.NDArray[np.float32]:
    rows, columns = size
    ys, xs = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    return np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * width**2)).astype(np.float32)


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.3, 0.62), (0.81, 0.2), (0.71, 0.77)])
def test_peak_is_finer_than_a_cell(at: tuple[float, float]) -> None:
    assert peak_of(blob(*at)) == pytest.approx(at, abs=0.025)
    x1, y1, x2, y2 = region_box(blob(*at), 0.5)
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx(at, abs=0.04)
    # half of a Gaussian's height lies 1.18 widths from its centre
    assert (x2 - x1, y2 - y1) == pytest.approx((0.283, 0.283), abs=0.06)


def test_box_holds_the_peaks_region_alone() -> None:
    both = np.maximum(blob(0.2, 0.3, (14, 14), 0.07), 0.8 * blob(0.8, 0.7, (14, 14), 0.07))
    x1, y1, x2, y2 = region_box(both, 0.5)
    assert x2 < 0.5 and y2 < 0.6 and x1 < 0.2 < x2 and y1 < 0.3 < y2


def test_flat_and_corner_maps() -> None:
    flat = np.full((7, 7), 0.3, np.float32)
    assert peak_of(flat) == (0.5, 0.5) and region_box(flat, 0.5) == (0.0, 0.0, 1.0, 1.0)
    corner = np.zeros((7, 7), np.float32)
    corner[0, 6] = 1
    assert peak_of(corner) == pytest.approx((6.5 / 7, 0.5 / 7))
    assert region_box(corner, 0.5)[1:3] == (0.0, 1.0)
    assert peak_of(np.ones((1, 1), np.float32)) == (0.5, 0.5)


def test_a_negative_threshold_is_released_below_itself() -> None:
    """Maps without presence heads may have thresholds below zero: what is on stays on a little below them."""
    given = Rules(
        config=DecisionConfig(visual_smoothing=0, audio_smoothing=0, min_off=0, release=0.8),
        classes=("cat", "dog"),
        audio_thresholds=np.full(2, 0.5, np.float32),
        visual_thresholds=np.full(2, -0.4, np.float32),
        has_presence=False,
    )
    state, found = DecisionState.start(2), []
    # released at -0.4 / 0.8 = -0.5
    for number, level in enumerate((-0.45, -0.39, -0.45, -0.49, -0.51, -0.45)):
        state, decision = step(
            given,
            state,
            time=number / 10,
            audio_prob=np.zeros(2, np.float32),
            visual_prob=np.zeros(2, np.float32),
            maps=np.stack([np.full((7, 7), level), np.full((7, 7), -9.0)]).astype(np.float32),
            loudness_db=-20.0,
        )
        found.append([source.label for source in decision.sources])
    assert found == [[], ["cat"], ["cat"], ["cat"], [], []]


def test_known_sound_resets_how_long_unknown_sound_was_heard() -> None:
    """Unknown sound counts from the last known one, not from the first loud frame."""
    sharp = rules(audio_smoothing=0, visual_smoothing=0, min_off=0, unknown_seconds=0.3, off_screen_seconds=0)
    heard = [[p, 0.0] for p in (0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1)]
    assert states(run(sharp, heard, [[0.0, 0.0]] * 7)) == [
        *("none", "none", "off-screen"),
        # three tenths after the frame at 0.3 s
        *("none", "none", "none", "unknown"),
    ]


def test_time_that_steps_back_smooths_nothing() -> None:
    """A frame from before the last one changes no smoothed value: elapsed time is never negative."""
    given = rules(audio_smoothing=0.2, visual_smoothing=0.2)
    state = DecisionState.start(2)

    def at(time: float, level: float) -> DecisionState:
        heard = np.full(2, level, np.float32)
        return step(given, state, time=time, audio_prob=heard, visual_prob=heard, maps=MAPS, loudness_db=-20.0)[0]

    state = at(5.0, 0.6)
    for back in (4.9, 1.0, -100.0):
        np.testing.assert_array_equal(at(back, 0.9).audio.value, state.audio.value)
    assert (at(5.1, 0.9).audio.value > state.audio.value).all()
