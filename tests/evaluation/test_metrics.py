"""Every metric against brute force or scikit-learn, on random and on adversarial maps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from avgn.evaluation import metrics
from avgn.runtime.arrays import Array

SIZE = (9, 13)


def _masks(rng: np.random.Generator) -> dict[str, Array]:
    some = rng.random(SIZE) < 0.3
    one = np.zeros(SIZE, dtype=bool)
    one[3, 4] = True
    box = np.zeros(SIZE, dtype=bool)
    box[2:7, 1:9] = True
    return {"random": some, "one pixel": one, "box": box, "full": np.ones(SIZE, dtype=bool)}


def _scores(rng: np.random.Generator) -> dict[str, Array]:
    smooth = rng.normal(size=SIZE).astype(np.float32)
    return {
        "continuous": smooth,
        "float64": rng.normal(size=SIZE),
        "ties": np.round(smooth, 0),
        "binary": (smooth > 0.5).astype(np.float32),
        "flat": np.full(SIZE, 0.3, dtype=np.float32),
        "signed zero": np.where(smooth > 0, np.float32(0.0), np.float32(-0.0)),
        "close": (1 + rng.integers(0, 3, SIZE) * np.finfo(np.float32).eps).astype(np.float32),
        "integers": rng.integers(-3, 3, SIZE),
    }


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks, scores = _masks(rng), _scores(rng)
    for name, score in scores.items():
        ours = metrics.average_precision(score[None], np.stack(list(masks.values())))[0]
        theirs = [average_precision_score(mask.ravel(), score.ravel()) for mask in masks.values()]
        np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0, err_msg=name)


def test_average_precision_of_a_canvas_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(2, 224, 224)).astype(np.float32)
    maps[1] = np.round(maps[1], 2)
    masks = rng.random((2, 224, 224)) < np.array([0.02, 0.6])[:, None, None]
    ours = metrics.average_precision(maps, masks)
    for m, s in itertools.product(range(2), range(2)):
        theirs = average_precision_score(masks[s].ravel(), maps[m].ravel())
        assert ours[m, s] == pytest.approx(theirs, abs=1e-9)


def test_average_precision_of_an_empty_mask_is_undefined_and_of_nan_refused() -> None:
    score = np.arange(12.0).reshape(1, 3, 4)
    assert np.isnan(metrics.average_precision(score, np.zeros((1, 3, 4)))).all()
    with pytest.raises(ValueError, match="NaN"):
        metrics.average_precision(np.full((1, 3, 4), np.nan), np.ones((1, 3, 4)))


def test_average_precision_of_nothing_is_empty() -> None:
    assert metrics.average_precision(np.zeros((0, 3, 4)), np.ones((2, 3, 4))).shape == (0, 2)
    assert metrics.average_precision(np.zeros((2, 3, 4)), np.ones((0, 3, 4))).shape == (2, 0)


def test_average_precision_of_a_flat_map_is_chance() -> None:
    mask = np.zeros((1, 10, 10))
    mask[0, :2] = 1
    assert metrics.average_precision(np.ones((1, 10, 10)), mask)[0, 0] == pytest.approx(0.2)


def test_iou_by_counting() -> None:
    rng = np.random.default_rng(2)
    for mask in _masks(rng).values():
        binary = rng.random(SIZE) < 0.4
        inter = sum(bool(b and g) for b, g in zip(binary.ravel(), mask.ravel(), strict=True))
        union = sum(bool(b or g) for b, g in zip(binary.ravel(), mask.ravel(), strict=True))
        assert float(metrics.iou(binary, mask)) == inter / union


def test_consensus_iou_by_its_formula() -> None:
    rng = np.random.default_rng(3)
    weight = np.minimum(rng.integers(0, 4, (5, *SIZE)) / 2, 1)
    binary = rng.random((5, *SIZE)) < 0.5
    expected = []
    for b, g in zip(binary, weight, strict=True):
        expected.append((b * g).sum() / (g.sum() + (b * (g == 0)).sum()))
    np.testing.assert_allclose(metrics.iou(binary, weight), expected, rtol=1e-12)


def test_iou_of_empty_and_full() -> None:
    empty, full = np.zeros(SIZE, dtype=bool), np.ones(SIZE, dtype=bool)
    assert np.isnan(metrics.iou(empty, empty))
    assert metrics.iou(full, empty) == 0
    assert metrics.iou(empty, full) == 0
    assert metrics.iou(full, full) == 1


def test_success_and_auc_use_exact_twentieths() -> None:
    values = np.array([3 / 10, 6 / 20, 0.29999, 1.0, 0.0])
    thresholds = [i / 20 for i in range(21)]
    rates = [float(np.mean([v >= t for v in values])) for t in thresholds]
    assert metrics.auc(values) == pytest.approx(np.trapezoid(rates, thresholds), abs=1e-12)
    assert metrics.auc(np.array([3 / 10])) == pytest.approx(0.3 + 0.025)
    assert metrics.auc(np.ones(3)) == pytest.approx(1.0)
    assert np.isnan(metrics.auc(np.zeros(0)))


def test_piap_is_the_best_of_all_permutations() -> None:
    rng = np.random.default_rng(4)
    for num_maps, num_sources in itertools.product(range(5), range(1, 5)):
        ap = rng.random((num_maps, num_sources))
        best = 0.0
        if num_maps >= num_sources:
            for chosen in itertools.permutations(range(num_maps), num_sources):
                best = max(best, sum(ap[m, s] for s, m in enumerate(chosen)))
        else:
            for places in itertools.permutations(range(num_sources), num_maps):
                best = max(best, sum(ap[m, s] for m, s in enumerate(places)))
        assert metrics.permutation_invariant_ap(ap) == pytest.approx(best / num_sources, abs=1e-12)


def test_piap_without_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        metrics.permutation_invariant_ap(np.zeros((2, 0)))


def test_min_max_and_flat_maps() -> None:
    rng = np.random.default_rng(5)
    maps = np.stack([rng.normal(size=SIZE), np.full(SIZE, -0.25)]).astype(np.float32)
    scaled, flat = metrics.min_max(maps)
    assert flat.tolist() == [False, True]
    assert scaled[0].min() == 0 and scaled[0].max() == 1
    assert not scaled[1].any()


def test_median_rule_keeps_at_least_half_and_all_of_a_flat_map() -> None:
    rng = np.random.default_rng(6)
    maps = rng.normal(size=(3, *SIZE))
    maps[2] = 0
    binary = metrics.at_least_median(maps)
    for score, chosen in zip(maps, binary, strict=True):
        assert (chosen == (score >= np.median(score))).all()
    assert binary[2].all()


@pytest.mark.parametrize("levels", [0, 1, 3, 1000])
def test_top_pixels_by_sorting(levels: int) -> None:
    rng = np.random.default_rng(levels)
    score = rng.integers(0, levels + 1, SIZE) / 7
    pixels = list(np.ndindex(*SIZE))
    order = sorted(pixels, key=lambda p: (-score[p], p))
    for count in (0, 1, 5, 60, len(pixels) - 1, len(pixels)):
        binary, tied = metrics.top_pixels(score, count)
        assert {p for p in pixels if binary[p]} == set(order[:count])
        expected = 0 < count < len(pixels) and score[order[count - 1]] == score[order[count]]
        assert tied == expected
    for wrong in (-1, len(pixels) + 1):
        with pytest.raises(ValueError, match="count"):
            metrics.top_pixels(score, wrong)


def test_terciles_hold_a_third_each() -> None:
    areas = np.random.default_rng(8).permutation(np.arange(30)) / 100
    assert np.bincount(metrics.terciles(areas)).tolist() == [10, 10, 10]
    assert areas[metrics.terciles(areas) == 0].max() < areas[metrics.terciles(areas) == 2].min()
    assert metrics.terciles(np.zeros(0)).size == 0 and metrics.terciles(np.zeros(0)).dtype == np.int64


def test_terciles_are_cut_at_a_third_and_two_thirds_and_the_cut_belongs_below() -> None:
    # the quantiles of 0, 1, 2, 3 are 1 and 2 themselves
    assert metrics.terciles(np.array([3, 0, 2, 1])).tolist() == [2, 0, 1, 0]
    # of 0 .. 9 they are 3 and 6: a cut elsewhere moves one of them
    assert metrics.terciles(np.arange(10)).tolist() == [0] * 4 + [1] * 3 + [2] * 3
    assert metrics.terciles(np.full(5, 0.4)).tolist() == [0] * 5


def test_quiet_is_at_most_two_tenths() -> None:
    edge = np.array([[0.2, np.nextafter(0.2, 1)], [0.19, 0.9]])
    assert metrics.quiet_share(edge) == 0.5 and metrics.FLAT_LEVEL == 0.2
    maps = np.random.default_rng(9).random((3, 2, *SIZE))
    expected = [[np.mean([[value <= 0.2 for value in row] for row in one]) for one in kind] for kind in maps]
    np.testing.assert_allclose(metrics.quiet_share(maps), expected)
    assert metrics.quiet_share(maps).shape == (3, 2)


def test_confidence_is_the_mean_of_the_top_quarter() -> None:
    rng = np.random.default_rng(10)
    for size in (SIZE, (4, 4), (1, 3), (1, 1)):
        maps = rng.normal(size=(2, 3, *size))
        found = metrics.confidence(maps)
        assert found.shape == (2, 3) and found.dtype == np.float64
        for a, b in itertools.product(range(2), range(3)):
            ordered = sorted(maps[a, b].ravel(), reverse=True)
            top = ordered[: max(1, len(ordered) // 4)]
            assert found[a, b] == pytest.approx(sum(top) / len(top))


def test_above_median_and_above_a_share_of_the_maximum() -> None:
    rng = np.random.default_rng(11)
    maps = np.round(rng.random((2, 3, 5, 7)), 1)
    for a, b in itertools.product(range(2), range(3)):
        score = maps[a, b]
        middle = sorted(score.ravel())[17]
        assert (metrics.above_median(maps)[a, b] == (score > middle)).all() and (score == middle).any()
        assert (metrics.at_least_median(maps)[a, b] == (score >= middle)).all()
        assert (metrics.above_share_of_max(maps, 0.5)[a, b] == (score > 0.5 * score.max())).all()
    # what equals the share is not above it
    assert metrics.above_share_of_max(np.array([[0.25, 0.5, 1.0]]), 0.5).tolist() == [[False, False, True]]


def test_medians_and_confidence_of_maps_in_four_axes_are_each_ones_own() -> None:
    maps = np.random.default_rng(15).random((2, 3, 2, 5, 7))
    at, above, sure = metrics.at_least_median(maps), metrics.above_median(maps), metrics.confidence(maps)
    for place in np.ndindex(2, 3, 2):
        assert (at[place] == metrics.at_least_median(maps[place])).all()
        assert (above[place] == metrics.above_median(maps[place])).all()
        assert sure[place] == pytest.approx(float(metrics.confidence(maps[place])))


def test_consensus_counts_two_annotators_as_sure() -> None:
    masks = np.array([[[1, 1, 0, 1]], [[0, 1, 0, 1]], [[0, 0, 0, 1]]], dtype=bool)
    assert metrics.consensus(masks).tolist() == [[0.5, 1.0, 0.0, 1.0]]


def test_softmax_is_over_the_classes_and_survives_large_maps() -> None:
    maps = np.random.default_rng(12).normal(size=(4, 3, 5)) * 3
    found = metrics.softmax(maps)
    np.testing.assert_allclose(found, np.exp(maps) / np.exp(maps).sum(axis=0))
    np.testing.assert_allclose(metrics.softmax(maps + 1e4), found, atol=1e-9)


def test_iou_of_several_masks_at_once_is_that_of_each() -> None:
    rng = np.random.default_rng(13)
    binary, mask = rng.random((2, 3, *SIZE)) < 0.4, rng.random((2, 3, *SIZE)) < 0.3
    binary[1, 2] = mask[1, 2] = False
    binary[0, 1], mask[0, 1] = False, False
    mask[0, 1, 3, 4] = True
    found = metrics.iou(binary, mask)
    assert found[0, 1] == 0 and found.shape == (2, 3) and found.dtype == np.float64 and np.isnan(found[1, 2])
    for a, b in itertools.product(range(2), range(3)):
        np.testing.assert_equal(float(found[a, b]), float(metrics.iou(binary[a, b], mask[a, b])))
    weight = np.where(mask, 0.5, 0.0)
    weight[1, 2] = 0
    # NaN where both are empty, zero where only one is
    assert np.isnan(metrics.iou(binary, weight)[1, 2])
    assert metrics.iou(np.ones(SIZE, bool), np.zeros(SIZE)) == 0


def test_each_value_has_its_own_area_under_the_curve() -> None:
    values = np.array([[0.0, 0.05], [0.5, 1.0]])
    found = metrics.area_under_success(values)
    # a value of i / 20 reaches i + 1 of the thresholds; those at the ends weigh half
    np.testing.assert_allclose(found, [[0.025, 0.075], [0.525, 1.0]])
    assert metrics.AUC_THRESHOLDS.tolist() == [i / 20 for i in range(21)]


def test_min_max_of_several_maps_keeps_each_ones_order() -> None:
    maps = np.random.default_rng(14).normal(size=(2, 3, *SIZE))
    maps[0, 1] = 7.0
    kept = maps.copy()
    scaled, flat = metrics.min_max(maps)
    assert flat.tolist() == [[False, True, False], [False] * 3] and np.array_equal(maps, kept)
    for a, b in itertools.product(range(2), range(3)):
        low, high = kept[a, b].min(), kept[a, b].max()
        truth = np.zeros(SIZE) if low == high else (kept[a, b] - low) / (high - low)
        np.testing.assert_allclose(scaled[a, b], truth)


def test_ranking_orders_pixels_by_falling_value() -> None:
    score = np.array([[0.1, 0.9], [0.5, 0.5]])
    assert metrics.Ranking(score, stable=True).order.tolist() == [1, 2, 3, 0]
    # equal values stay row-major, however many there are
    flat = np.tile([0.0, 1.0], 500)
    assert metrics.Ranking(flat, stable=True).order.tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]
    assert np.isnan(metrics.Ranking(score).average_precision(np.zeros(4, bool)))
    # nothing counted, and one of two counted, whichever is the last
    assert np.isnan(metrics.Ranking(np.zeros(0)).average_precision(np.zeros(0, bool)))
    assert metrics.Ranking(np.array([0.2, 0.1])).average_precision(np.array([False, True])) == 0.5
    with pytest.raises(ValueError, match="NaN"):
        metrics.Ranking(np.array([0.0, np.nan]))


def test_the_best_assignment_is_by_the_sum_and_leaves_sources_without_a_map() -> None:
    # greedy by the largest value would take map 0 for source 0
    assert metrics.best_assignment(np.array([[0.9, 0.8], [0.7, 0.1]])).tolist() == [1, 0]
    assert metrics.best_assignment(np.array([[0.2, 0.8, 0.3]])).tolist() == [-1, 0, -1]
    assert metrics.permutation_invariant_ap(np.array([[0.2, 0.8, 0.3]])) == pytest.approx(0.8 / 3)
