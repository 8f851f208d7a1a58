"""Ratios of sums and their bootstrap intervals, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.evaluation.statistics import Ratio, bootstrap_intervals, cluster_mean, ratio_value


def test_values_of_plain_and_macro_ratios() -> None:
    plain = Ratio(numerator=np.array([1.0, 0, 1]), denominator=np.array([2.0, 0, 2]))
    assert ratio_value(plain) == 50.0
    macro = Ratio(numerator=np.array([[1.0, 0, 0], [1, 1, 0]]), denominator=np.array([[1.0, 4, 0], [1, 0, 0]]), scale=1)
    assert ratio_value(macro) == pytest.approx((1 + 0.25) / 2)
    nothing = np.zeros(3)
    assert ratio_value(Ratio(numerator=nothing, denominator=nothing)) is None
    assert ratio_value(Ratio(numerator=np.zeros((3, 2)), denominator=np.zeros((3, 2)))) is None


def test_intervals_equal_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(25), 4)
    hits, cases = (rng.random((100, 3)) < 0.6) * 1.0, np.ones((100, 3))
    ratios = {
        "micro": Ratio(numerator=hits[:, 0], denominator=cases[:, 0]),
        "macro": Ratio(numerator=hits, denominator=cases),
    }
    ours = bootstrap_intervals(ratios, clusters, samples=4000, seed=3)
    micro, macro = [], []
    for _ in range(4000):
        drawn = np.concatenate([np.flatnonzero(clusters == c) for c in rng.integers(0, 25, 25)])
        micro.append(100 * hits[drawn, 0].mean())
        macro.append(100 * hits[drawn].mean(axis=0).mean())
    for name, values in (("micro", micro), ("macro", macro)):
        interval = ours[name]
        assert interval is not None
        np.testing.assert_allclose(interval, np.quantile(values, [0.025, 0.975]), atol=1.0)


def test_intervals_are_seeded_and_cover() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        values = (rng.random(150) < 0.7) * 1.0
        ratio = {"x": Ratio(numerator=values, denominator=np.ones(150), scale=1)}
        first = bootstrap_intervals(ratio, np.arange(150), samples=400, seed=trial)
        assert first == bootstrap_intervals(ratio, np.arange(150), samples=400, seed=trial)
        interval = first["x"]
        assert interval is not None
        covered += interval[0] <= 0.7 <= interval[1]
    assert 178 <= covered <= 199


def test_another_seed_draws_others_and_so_do_more_samples() -> None:
    values = np.random.default_rng(2).random(60)
    ratio = {"x": Ratio(numerator=values, denominator=np.ones(60), scale=1)}
    found = [bootstrap_intervals(ratio, np.arange(60), samples=200, seed=seed)["x"] for seed in range(5)]
    assert len({str(interval) for interval in found}) == 5
    assert bootstrap_intervals(ratio, np.arange(60), samples=199)["x"] != found[0]
    assert (
        bootstrap_intervals(ratio, np.arange(60))["x"] == bootstrap_intervals(ratio, np.arange(60), samples=1000)["x"]
    )


def test_frames_of_one_video_are_drawn_together() -> None:
    ratio = {"x": Ratio(numerator=np.arange(10.0), denominator=np.ones(10), scale=1)}
    interval = bootstrap_intervals(ratio, np.array(["one video"] * 10))["x"]
    assert interval == [4.5, 4.5]
    assert bootstrap_intervals(ratio, np.zeros(0))["x"] is None


def test_cluster_mean_weighs_videos_alike() -> None:
    ratio = Ratio(numerator=np.array([1.0, 1, 1, 0, 0]), denominator=np.array([1.0, 1, 1, 1, 0]))
    assert cluster_mean(ratio, np.array(["a", "a", "a", "b", "c"])) == 50.0
