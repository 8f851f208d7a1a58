"""The joint rule, and patches: against plain loops, and through a whole stream."""

from __future__ import annotations

import json
from dataclasses import asdict as to_dict
from dataclasses import replace

import numpy as np
import pytest

from avgn.runtime.bundle_schema import BundleInfo, Joint, Patches, Thresholds, Variant, from_json, to_json
from avgn.runtime.contract import TensorSpec
from avgn.runtime.decision import Decision, DecisionConfig, DecisionState, Rules, step
from avgn.runtime.errors import InputError
from avgn.runtime.joint import joint_odds, judge
from avgn.runtime.patches import cut_patches, pool_patches
from avgn.runtime.stream import StreamLocalizer

RATE, HOP, PATCH, WINDOW = 1000, 200, 300, 900
CLASSES = ("dog", "wolf", "bell")
RULE = Joint(visual_weight=0.5, thresholds=(0.0, 0.0, 0.0), margin=2.0, apart=0.2, floor=-5.0)


def info() -> BundleInfo:
    spec = (TensorSpec(name="x", dtype="float32", shape=("batch",)),)
    halves: dict[str, tuple[TensorSpec, ...]] = {"audio": spec, "image": spec}
    variant = Variant(
        precision="fp32",
        engine="onnxruntime",
        target="any",
        audio="audio.onnx",
        image="image.onnx",
        sha256={half: "0" * 64 for half in halves},
        inputs=halves,
        outputs=halves,
    )
    return BundleInfo(
        model={"name": "some", "config": {}},
        classes=CLASSES,
        sample_rate=RATE,
        window_seconds=WINDOW / RATE,
        image_size=(64, 64),
        grid=(4, 4),
        thresholds=Thresholds(audio=(0.5,) * 3, visual=(0.5,) * 3),
        variants=(variant,),
        patches=Patches(samples=PATCH, loudest=2),
        joint=RULE,
    )


def odds(*values: float) -> np.ndarray:
    return (1 / (1 + np.exp(-np.asarray(values)))).astype(np.float32)


def maps(*peaks: tuple[int, int]) -> np.ndarray:
    found = np.zeros((len(peaks), 4, 4), np.float32)
    for k, (row, column) in enumerate(peaks):
        found[k, row, column] = 1
    return found


def test_the_schema_keeps_both() -> None:
    assert from_json(to_json(info())) == info()
    plain = replace(info(), patches=None, joint=None)
    assert "joint" not in json.loads(to_json(plain)) and from_json(to_json(plain)) == plain


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("patches", {"samples": 350, "loudest": 2}, "must be whole patches, 200 samples apart"),
        ("patches", {"samples": 1100, "loudest": 2}, "must be whole patches"),
        ("patches", {"samples": 300, "loudest": 0}, "patches.loudest must be a whole number from 1"),
        ("patches", [], "patches must be an object"),
        ("joint", {"visual_weight": 1}, "joint.thresholds must list one value for each of the 3 classes"),
        ("joint", {"visual_weight": -1, "thresholds": [0, 0, 0]}, "joint.visual_weight must be a number from 0"),
        ("joint", {"visual_weight": 1, "thresholds": [0, 0, 0], "margin": 1, "apart": 2}, "joint.apart must be"),
        ("joint", to_dict(RULE) | {"scale": 0}, "joint.scale must be a number from 1e-06"),
    ],
)
def test_the_schema_refuses(field: str, value: object, message: str) -> None:
    raw = json.loads(to_json(info())) | {field: value}
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(raw))


def test_the_scale_leaves_the_threshold_and_stretches_the_rest() -> None:
    plain, scaled = (
        judge(replace(RULE, margin=9.0, scale=scale), odds(1, 2, 0), odds(-2, 2, 0), maps((0, 0), (2, 2), (3, 0)))
        for scale in (1.0, 0.5)
    )
    np.testing.assert_allclose(np.log(plain.prob / (1 - plain.prob)), [0, 3, 0], atol=1e-5)
    np.testing.assert_allclose(np.log(scaled.prob / (1 - scaled.prob)), [0, 1.5, 0], atol=1e-5)
    older = json.loads(to_json(info()))
    del older["joint"]["scale"]
    assert from_json(json.dumps(older)) == info()


def test_what_is_hardly_seen_is_no_source_on_screen() -> None:
    rule = replace(RULE, seen_floor=-2.5)
    verdict = judge(rule, odds(6, 6, -1), odds(-3, -2, 4), maps((0, 0), (2, 2), (3, 0)))
    assert verdict.claimed.tolist() == [False, True, False]
    assert (
        verdict.prob[0] == 0 and judge(RULE, odds(6, 6, -1), odds(-3, -2, 4), maps((0, 0), (2, 2), (3, 0))).claimed[0]
    )


def test_one_thing_with_one_sound_is_one_source() -> None:
    """dog and wolf peak in neighbouring cells, the bell elsewhere."""
    verdict = judge(replace(RULE, apart=0.3), odds(2, 1, 1.5), odds(1, 1, 1), maps((1, 1), (1, 2), (3, 3)))
    assert verdict.claimed.tolist() == [True, False, True]
    assert list(verdict.instead_of) == [0] and verdict.instead_of[0][0][0] == 1
    assert verdict.instead_of[0][0][1] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-5)
    apart = judge(replace(RULE, apart=0.2), odds(2, 1, 1.5), odds(1, 1, 1), maps((1, 1), (1, 2), (3, 3)))
    assert apart.claimed.tolist() == [True, True, True]


def test_what_is_far_behind_the_best_is_no_source() -> None:
    verdict = judge(RULE, odds(3, 0.5, 1.2), odds(0, 0, 0), maps((0, 0), (0, 3), (3, 3)))
    assert verdict.claimed.tolist() == [True, False, True]


def test_what_is_hardly_heard_is_no_source_whatever_is_seen() -> None:
    verdict = judge(RULE, odds(-5.5, -4.5, -9), odds(14, 14, 14), maps((0, 0), (0, 3), (3, 3)))
    assert verdict.claimed.tolist() == [False, True, False]


def test_of_two_things_in_plain_view_the_less_unlikely_sound_is_ahead() -> None:
    prob = np.float32(1) / (1 + np.exp(-np.array([-30.0, -20.0, -70.0]))).astype(np.float32)
    odds = joint_odds(RULE, prob, np.full(3, 0.9, np.float32))
    np.testing.assert_allclose(odds - odds[0], [0, 10, -30], atol=1e-4)


@pytest.mark.parametrize("heard", [0.0, 1.0])
def test_certain_probabilities_are_finite(heard: float) -> None:
    certain = np.full(3, heard, np.float32)
    verdict = judge(RULE, certain, certain, maps((0, 0), (0, 3), (3, 3)))
    assert np.isfinite(verdict.prob).all() and verdict.claimed.all() == bool(heard)


def plainly(
    rule: Joint, heard: np.ndarray, seen: np.ndarray, heat: np.ndarray
) -> tuple[np.ndarray, dict[int, list[tuple[int, float]]]]:
    """The rule in plain loops, on log-odds: probabilities [K], and {class: [(other, probability)]}."""
    height, width = heat.shape[1:]
    able = [heard[k] >= rule.floor and seen[k] >= rule.seen_floor for k in range(len(heard))]
    score = [heard[k] + rule.visual_weight * seen[k] for k in range(len(heard))]
    above = [score[k] - rule.thresholds[k] for k in range(len(heard))]
    prob = [1 / (1 + np.exp(-rule.scale * above[k])) if able[k] else 0.0 for k in range(len(heard))]
    best = max((score[k] for k in range(len(heard)) if able[k]), default=-np.inf)
    said = [0.0 if score[k] < best - rule.margin else prob[k] for k in range(len(heard))]
    stand: dict[int, list[tuple[int, float]]] = {}
    for k in sorted(range(len(heard)), key=lambda k: -score[k]):
        if not able[k] or above[k] < -rule.margin:
            continue
        row, column = np.unravel_index(heat[k].argmax(), heat[k].shape)
        for other in stand:
            there = np.unravel_index(heat[other].argmax(), heat[other].shape)
            if abs(row - there[0]) / height <= rule.apart and abs(column - there[1]) / width <= rule.apart:
                stand[other].append((k, prob[k]))
                said[k] = 0.0
                break
        else:
            stand[k] = []
    return np.array(said), {k: others for k, others in stand.items() if others}


@pytest.mark.parametrize("seed", range(40))
def test_the_verdict_is_that_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, (height, width) = int(rng.integers(1, 12)), rng.integers(2, 7, 2)
    heard, seen = rng.normal(0, 3, count), rng.normal(0, 3, count)
    rule = Joint(
        visual_weight=float(rng.uniform(0.2, 2)),
        thresholds=tuple(rng.normal(0, 2, count).tolist()),
        margin=float(rng.uniform(0.5, 6)),
        apart=float(rng.uniform(0, 0.7)),
        floor=float(rng.uniform(-4, 0)),
        seen_floor=float(rng.uniform(-6, -2)),
        scale=float(rng.uniform(0.3, 2)),
    )
    heat = rng.normal(size=(count, height, width)).astype(np.float32)
    said, stand = plainly(rule, heard, seen, heat)
    found = judge(rule, odds(*heard), odds(*seen), heat)
    np.testing.assert_allclose(found.prob, said, atol=1e-4)
    assert {k: [other for other, _ in others] for k, others in found.instead_of.items()} == {
        k: [other for other, _ in others] for k, others in stand.items()
    }
    for k, others in stand.items():
        np.testing.assert_allclose([p for _, p in found.instead_of[k]], [p for _, p in others], atol=1e-4)


def test_what_equals_a_bound_has_reached_it() -> None:
    even = np.full(3, 0.5, np.float32)
    # log-odds of 0 on both sides: at the threshold, at both floors
    at = judge(replace(RULE, floor=0.0, seen_floor=0.0, apart=0.0), even, even, maps((0, 0), (0, 3), (3, 3)))
    assert at.claimed.all() and at.prob.tolist() == [0.5] * 3
    # neighbouring cells of four are a quarter of the side apart
    side = judge(replace(RULE, apart=0.25), even, even, maps((1, 1), (1, 2), (3, 3)))
    assert side.claimed.tolist() == [True, False, True] and list(side.instead_of) == [0]


def decided(
    frames: list[tuple[np.ndarray, np.ndarray]], joint: Joint, *, loudness: float = -20.0, **config: float
) -> list[tuple[DecisionState, Decision]]:
    """Decide frames (heard, seen) 20 ms apart by a joint rule; returns what each came to: (state, decision)."""
    count = len(frames[0][0])
    rules = replace(
        Rules.for_bundle(info()),
        config=DecisionConfig(**config),
        classes=tuple(f"class {k}" for k in range(count)),
        audio_thresholds=np.full(count, 0.5, np.float32),
        visual_thresholds=np.full(count, 0.5, np.float32),
        joint=joint,
    )
    state, found = DecisionState.start(count), []
    heat = maps(*[(1, 1)] * count)
    for at, (heard, seen) in enumerate(frames):
        state, decision = step(
            rules, state, time=0.02 * at, audio_prob=heard, visual_prob=seen, maps=heat, loudness_db=loudness
        )
        found.append((state, decision))
    return found


def test_both_halves_are_smoothed_once_before_they_are_judged() -> None:
    some = replace(RULE, thresholds=(0.0,))
    frames = [(odds(4), odds(4)), (odds(-4), odds(-4))]
    for state, decision in decided(frames, some, audio_smoothing=1.0, visual_smoothing=1.0, min_off=0.0):
        # one frame of 20 ms changes little
        assert [source.on_screen for source in decision.sources] == [True]
        verdict = judge(some, state.audio.value, state.visual.value, maps((1, 1)))
        np.testing.assert_array_equal(state.joint.value, verdict.prob)


def test_what_leaves_the_picture_goes_on_sounding() -> None:
    frames = [(odds(1), odds(2)), *[(odds(1), odds(-9))] * 30]
    found = decided(frames, replace(RULE, thresholds=(0.5,)), audio_smoothing=0.0, visual_smoothing=0.0)
    assert [source.on_screen for source in found[0][1].sources] == [True]
    assert [source.on_screen for source in found[-1][1].sources] == [False] and found[-1][1].state == "off-screen"


def test_silence_is_no_source_however_little_a_rule_asks_for() -> None:
    anything = replace(RULE, thresholds=(-500.0,), floor=-60.0)
    assert decided([(odds(2), odds(2))], anything)[0][1].state == "source"
    assert decided([(odds(2), odds(2))], anything, loudness=-90.0)[0][1].sources == ()


def test_three_alternatives_are_said_and_no_more() -> None:
    many = replace(RULE, thresholds=(0.0,) * 6, margin=9.0)
    ((_, decision),) = decided([(odds(6, 5, 4, 3, 2, 1), odds(*[1] * 6))], many)
    (source,) = decision.sources
    assert [label for label, _ in source.alternatives] == ["class 1", "class 2", "class 3"]


def test_a_stream_says_the_alternatives_and_nothing_in_silence() -> None:
    rules = Rules.for_bundle(replace(info(), joint=replace(RULE, apart=0.3)))
    heat = maps((1, 1), (1, 2), (3, 3))
    seen = odds(1, 1, -8)
    for loudness, expected in ((-20.0, ["dog"]), (-90.0, [])):
        _, decision = step(
            rules,
            DecisionState.start(3),
            time=0.0,
            audio_prob=odds(2, 1, -8),
            visual_prob=seen,
            maps=heat,
            loudness_db=loudness,
        )
        assert [source.label for source in decision.sources] == expected
    _, decision = step(
        rules,
        DecisionState.start(3),
        time=0.0,
        audio_prob=odds(2, 1, -8),
        visual_prob=seen,
        maps=heat,
        loudness_db=-20.0,
    )
    (source,) = decision.sources
    assert source.on_screen and source.peak is not None
    assert [label for label, _ in source.alternatives] == ["wolf"]


def test_pooling_equals_a_loop() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4, 3, 1)).astype(np.float32)
    found = pool_patches(info(), logits)
    for n in range(2):
        for k in range(3):
            best = sorted(float(v) for v in logits[n, :, k, 0])[-2:]
            assert found["sources"][n, k, 0] == pytest.approx(sum(best) / 2, abs=1e-6)
            assert found["audio_prob"][n, k] == pytest.approx(1 / (1 + np.exp(-sum(best) / 2)), abs=1e-6)


class Counting:
    """An engine whose patches' log-odds are their mean, spread and maximum; it counts what it computes."""

    name = "counting"

    def __init__(self, *, patched: bool) -> None:
        self.info = info()
        self.computed = 0
        if patched:
            self.run_patches = self._patches

    def _patches(self, waveform: np.ndarray) -> np.ndarray:
        self.computed += len(waveform)
        return np.stack([waveform.mean(1), waveform.std(1), waveform.max(1)], axis=1)[:, :, None].astype(np.float32)

    def run_audio(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        patches = cut_patches(self.info, waveform)
        flat = self._patches(np.ascontiguousarray(patches.reshape(-1, PATCH)))
        return pool_patches(self.info, flat.reshape(*patches.shape[:2], 3, 1))

    def run_image(self, image: np.ndarray, sources: np.ndarray) -> dict[str, np.ndarray]:
        return {"maps": np.repeat(sources[:, :, :, None], 4, 2).repeat(4, 3), "visual_prob": odds(*sources[:, :, 0])}


@pytest.mark.parametrize("mode", ["live", "file"])
@pytest.mark.parametrize("chunk", [37, 200, 5000])
def test_a_hop_computes_one_patch_and_gives_what_whole_windows_give(mode: str, chunk: int) -> None:
    sound = np.random.default_rng(1).normal(size=5000).astype(np.float32)
    frame = np.zeros((8, 8, 3), np.uint8)
    streams = {}
    for patched in (True, False):
        engine = Counting(patched=patched)
        stream = StreamLocalizer(engine, mode=mode)  # type: ignore[arg-type]
        results = []
        for at in range(0, len(sound), chunk):
            results += stream.push_audio(sound[at : at + chunk], RATE, at / RATE)
            ends = range(at, min(at + chunk, len(sound)), 100)
            for time in ends:
                results += stream.push_frame(frame, time / RATE)
        results += stream.flush()
        streams[patched] = (engine.computed, stream.state.windows, [result.audio_prob for result in results])
    (few, windows, mine), (many, _, theirs) = streams[True], streams[False]
    np.testing.assert_array_equal(np.stack(mine), np.stack(theirs))
    patches = (WINDOW - PATCH) // HOP + 1
    assert many == windows * patches and few == windows + patches - 1


def test_sound_that_was_not_there_yet_is_not_remembered() -> None:
    """A frame that may not wait takes silence; the patch is heard again once its sound has come."""
    sound = np.ones(2000, np.float32)
    late = StreamLocalizer(Counting(patched=True), max_wait=0.1)  # type: ignore[arg-type]
    frame = np.zeros((8, 8, 3), np.uint8)
    late.push_audio(sound[:500], RATE, 0.0)
    results = late.push_frame(frame, 0.8) + late.push_frame(frame, 0.95)
    late.push_audio(sound[500:], RATE, 0.5)
    results += late.push_frame(frame, 1.0) + late.push_frame(frame, 1.2) + late.flush()
    truth = StreamLocalizer(Counting(patched=True))  # type: ignore[arg-type]
    truth.push_audio(sound, RATE, 0.0)
    expected = truth.push_frame(frame, 1.2) + truth.flush()
    np.testing.assert_array_equal(results[-1].audio_prob, expected[-1].audio_prob)
