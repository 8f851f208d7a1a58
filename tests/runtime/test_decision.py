from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from avgn.runtime.bundle_schema import BundleInfo, Thresholds
from avgn.runtime.decision import Decision, DecisionConfig, DecisionState, Heard, Hysteresis, Rules, step
from avgn.runtime.errors import InputError
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
    # on after 0.2 s, off after 0.3 s: a shorter burst or dip changes nothing
    slow = rules(audio_smoothing=0, visual_smoothing=0, min_on=0.2, min_off=0.3, off_screen_seconds=0)
    heard = [[p, 0.0] for p in (0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9)]
    expected = ["off-screen" if on else "none" for on in (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)]
    assert states(run(slow, heard, [[0.0, 0.0]] * 15, loud=-50)) == expected
    # and the other way round
    quick = rules(audio_smoothing=0, visual_smoothing=0, min_on=0.3, min_off=0.1, off_screen_seconds=0)
    heard = [[p, 0.0] for p in (0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9)]
    expected = ["off-screen" if on else "none" for on in (0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0)]
    assert states(run(quick, heard, [[0.0, 0.0]] * 13, loud=-50)) == expected


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


def test_the_constants_are_the_documented_ones() -> None:
    assert dataclasses.asdict(DecisionConfig()) == {
        "audio_smoothing": 0.05,
        "visual_smoothing": 0.1,
        "release": 0.7,
        "min_on": 0.0,
        "min_off": 0.1,
        "silence_db": -60.0,
        "unknown_db": -40.0,
        "unknown_seconds": 0.3,
        "box_fraction": 0.5,
        "off_screen_margin": 0.75,
        "off_screen_seconds": 0.6,
    }
    kinds: tuple[Any, ...] = (DecisionConfig, Rules, Hysteresis, DecisionState, Heard, Decision)
    for kind in kinds:
        assert kind.__dataclass_params__.frozen
        assert all(each.kw_only for each in dataclasses.fields(kind))


SECONDS = ("audio_smoothing", "visual_smoothing", "min_on", "min_off", "unknown_seconds", "off_screen_seconds")
LIMITS = (
    [(name, (0.0, 60.0), (-0.001, 60.5, float("nan")), "from 0 to 60 seconds") for name in SECONDS]
    + [(name, (0.01, 1.0), (0.0, -0.5, 1.01, 1.5), "above 0 and at most 1") for name in ("release", "box_fraction")]
    + [("off_screen_margin", (0.0, 0.99), (-0.1, 1.0, 1.5), "from 0 to below 1")]
    + [(name, (-200.0, 20.0), (-200.5, 20.5), "from -200 to 20 dBFS") for name in ("silence_db", "unknown_db")]
)


@pytest.mark.parametrize(("name", "good", "bad", "rule"), LIMITS, ids=[row[0] for row in LIMITS])
def test_constants_have_limits(name: str, good: tuple[float, ...], bad: tuple[float, ...], rule: str) -> None:
    for value in good:
        assert getattr(DecisionConfig(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(InputError, match=f"decision.{name} must be {rule}, got {value}"):
            DecisionConfig(**{name: value})


def info(**decision: Any) -> BundleInfo:
    return BundleInfo(
        model={},
        classes=("cat", "dog"),
        sample_rate=16_000,
        window_seconds=0.5,
        image_size=(64, 64),
        grid=(2, 2),
        thresholds=Thresholds(audio=(0.3, 0.4), visual=(0.5, 0.6)),
        variants=(),
        decision=decision,
    )


def test_a_bundle_brings_its_own_constants_and_thresholds() -> None:
    given = Rules.for_bundle(info(release=0.9))
    assert given.config == DecisionConfig(release=0.9) and given.classes == ("cat", "dog") and given.has_presence
    np.testing.assert_allclose(given.audio_thresholds, [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(given.visual_thresholds, [0.5, 0.6], rtol=1e-6)
    # what the caller asks for comes first
    assert Rules.for_bundle(info(release=0.9), DecisionConfig(min_on=0.2)).config == DecisionConfig(min_on=0.2)
    with pytest.raises(InputError, match="bundle decision 'alpha' is not known: use some of audio_smoothing, box_fr"):
        Rules.for_bundle(info(zeta=1.0, alpha=1.0, release=0.9))


def test_what_equals_a_level_or_a_threshold_has_reached_it() -> None:
    sharp = rules(audio_smoothing=0, visual_smoothing=0, min_off=0, release=0.5)
    # halves and quarters are exact: on at 0.5, off below 0.25
    seen = [[0.9, 0.0]] * 5
    heard = [[p, 0.0] for p in (0.4999, 0.5, 0.25, 0.2499, 0.5)]
    assert states(run(sharp, heard, seen, loud=-50)) == ["none", "source", "source", "none", "source"]
    # silence lies below -60 dB, unknown sound begins at -40 dB
    assert states(run(sharp, [[0.9, 0.0]], [[0.9, 0.0]], loud=-60.0)) == ["source"]
    assert states(run(sharp, [[0.9, 0.0]], [[0.9, 0.0]], loud=-60.01)) == ["none"]
    quiet = [[0.0, 0.0]] * 4
    assert states(run(sharp, quiet, quiet, loud=-40.0)) == ["none"] * 3 + ["unknown"]
    assert states(run(sharp, quiet, quiet, loud=-40.01)) == ["none"] * 4
    # nearly certain: from exactly 0.5 + 0.75 * 0.5
    certain = rules(audio_smoothing=0, visual_smoothing=0, off_screen_seconds=0)
    assert states(run(certain, [[0.875, 0.0]], [[0.0, 0.0]])) == ["off-screen"]
    assert states(run(certain, [[0.8749, 0.0]], [[0.0, 0.0]])) == ["none"]


def test_without_presence_heads_silence_is_no_source_and_the_map_decides() -> None:
    given = rules(False, audio_smoothing=0, visual_smoothing=0, min_off=0, off_screen_seconds=0)
    anything = [[0.0, 0.0]] * 2
    loud, silent = (run(given, anything, anything, loud=level) for level in (-59.0, -61.0))
    assert states(loud) == ["source"] * 2 and [s.label for s in loud[0].sources] == ["cat", "dog"]
    assert states(silent) == ["none"] * 2 and not silent[0].sources
    assert loud[0].sources[0].audio_prob == loud[0].sources[0].visual_prob == 1.0


@pytest.mark.parametrize("has_presence", [True, False], ids=["presence", "maps alone"])
def test_certainty_is_measured_from_the_threshold_that_decided(has_presence: bool) -> None:
    def certainty(value: float, audio: float, visual: float) -> float:
        given = Rules(
            config=DecisionConfig(audio_smoothing=0, visual_smoothing=0),
            classes=("cat", "dog"),
            audio_thresholds=np.full(2, audio, np.float32),
            visual_thresholds=np.full(2, visual, np.float32),
            has_presence=has_presence,
        )
        probabilities = np.array([value, -9.0], np.float32)
        maps = np.stack([np.full((3, 3), value), np.full((3, 3), -9.0)]).astype(np.float32)
        _, decision = step(
            given,
            DecisionState.start(2),
            time=0.0,
            audio_prob=probabilities if has_presence else np.zeros(2, np.float32),
            visual_prob=np.full(2, 1.0, np.float32) if has_presence else np.zeros(2, np.float32),
            maps=maps,
            loudness_db=-20.0,
        )
        (source,) = decision.sources
        assert source.audio_prob == pytest.approx(value) and source.label == "cat" and source.index == 0
        assert source.visual_prob == pytest.approx(1.0 if has_presence else value)
        return source.certainty

    audio, visual = (0.2, 0.6) if has_presence else (0.6, 0.2)
    assert certainty(0.7, audio, visual) == pytest.approx(0.5 + 0.5 * (0.7 - 0.2) / 0.8)
    # a threshold of one leaves no room above it, and nothing is more than certain
    assert certainty(1.0, 1.0, 1.0) == 0.5
    if not has_presence:
        assert certainty(1.5, 0.5, 0.5) == 1.0


def test_sources_are_compared_without_their_maps_and_are_certain_unless_said() -> None:
    plain: dict[str, Any] = {"label": "cat", "index": 0, "audio_prob": 0.9, "visual_prob": 0.8, "on_screen": True}
    assert Heard(**plain, map=MAPS[0]) == Heard(**plain, map=MAPS[1]) and Heard(**plain).certainty == 1.0


def test_a_map_and_its_box_belong_to_the_class() -> None:
    wide = rules(box_fraction=0.5)
    (both,) = run(wide, [[0.9, 0.9]], [[0.9, 0.9]])
    assert [(s.label, s.index) for s in both.sources] == [("cat", 0), ("dog", 1)]
    for source, given in zip(both.sources, MAPS, strict=True):
        assert source.map is not None and np.array_equal(source.map, given)
        assert source.peak == peak_of(given) and source.box == region_box(given, 0.5)
    blurred = np.stack([blob(0.5, 0.5), blob(0.3, 0.3)])
    for fraction in (0.25, 0.75):
        _, decision = step(
            rules(box_fraction=fraction),
            DecisionState.start(2),
            time=0.0,
            audio_prob=np.ones(2, np.float32),
            visual_prob=np.ones(2, np.float32),
            maps=blurred,
            loudness_db=-20.0,
        )
        assert decision.sources[0].box == region_box(blurred[0], fraction)
