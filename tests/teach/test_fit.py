"""The regression against a plain one, and what an example leaves behind against a fit without it."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.teach import fitting
from avgn.teach.bank import Bank, Things
from avgn.teach.examples import Example, Examples, Picture
from avgn.teach.fit import CONSTANT, MASS, Fit, Line, fit, side
from avgn.teach.tokens import Rows
from avgn.world.settings import BLUR, BLUR_REACH, LENGTH_WEIGHT, LOUDEST, NOISE_LEAD

WIDTH = 40
RIDGE = 30.0


def drawn(seed: int, groups: int, shift: float) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        (random.standard_normal((5, WIDTH)) + shift * np.r_[1, np.zeros(WIDTH - 1)]).astype(np.float32)
        for _ in range(groups)
    ]


def slow(positive: list[np.ndarray], negative: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Gradient descent in float64 on the same likelihood."""
    rows = np.concatenate([*positive, *negative]).astype(np.float64)
    rows = np.hstack([rows, np.full((len(rows), 1), CONSTANT)])
    count = sum(map(len, positive))
    truth = np.r_[np.ones(count), np.zeros(len(rows) - count)]
    weights = MASS * np.r_[np.full(count, 1 / count), np.full(len(rows) - count, 1 / (len(rows) - count))]
    solution = np.zeros(WIDTH + 1)
    for _ in range(200):
        prob = 1 / (1 + np.exp(-rows @ solution))
        gradient = rows.T @ (weights * (truth - prob)) - RIDGE * solution
        hessian = rows.T @ (rows * (weights * prob * (1 - prob))[:, None]) + RIDGE * np.eye(WIDTH + 1)
        solution += np.linalg.solve(hessian, gradient)
    return solution[:-1], float(CONSTANT * solution[-1])


def test_it_is_the_likelihoods_maximum() -> None:
    positive, negative = drawn(0, 8, 1.5), drawn(1, 20, 0.0)
    found = fit(side(positive), side(negative), np.ones(WIDTH, np.float32), RIDGE)
    weight, bias = slow(positive, negative)
    np.testing.assert_allclose(found.line.weight, weight, atol=0.02)
    assert found.line.bias == pytest.approx(bias, abs=0.05)


def test_a_line_without_an_example_is_near_the_fit_that_never_met_it() -> None:
    positive, negative = drawn(2, 6, 1.5), drawn(3, 20, 0.0)
    found = fit(side(positive), side(negative), np.ones(WIDTH, np.float32), RIDGE)
    for out in range(len(positive)):
        rest = positive[:out] + positive[out + 1 :]
        again = fit(side(rest), side(negative), np.ones(WIDTH, np.float32), RIDGE).line
        one, other, with_it = (line(positive[out]).mean() for line in (found.without[out], again, found.line))
        # most of what the example itself had pulled up is gone
        assert abs(one - other) < 0.35 * abs(with_it - other) + 0.1


def test_one_example_is_enough_and_nothing_is_left_without_it() -> None:
    found = fit(side(drawn(4, 1, 2.0)), side(drawn(5, 10, 0.0)), np.ones(WIDTH, np.float32), RIDGE)
    assert found.without == (found.line,)
    assert found.line(drawn(6, 1, 2.0)[0]).mean() > found.line(drawn(7, 1, 0.0)[0]).mean()


def test_a_stretched_line_gives_stretched_logits() -> None:
    line = Line(weight=np.array([0.5, -2.0], np.float32), bias=3.0)
    features = np.array([[1.0, 2.0], [0.0, 0.0], [-4.0, 1.0]], np.float32)
    np.testing.assert_allclose(line.stretched(2.5, -7.0)(features), 2.5 * line(features) - 7.0, rtol=1e-6)


def test_a_feature_is_measured_in_its_own_spread() -> None:
    positive, negative = drawn(8, 6, 1.5), drawn(9, 20, 0.0)
    spread = np.random.default_rng(0).uniform(0.2, 5, WIDTH).astype(np.float32)
    found = fit(side([part * spread for part in positive]), side([part * spread for part in negative]), spread, RIDGE)
    plain = fit(side(positive), side(negative), np.ones(WIDTH, np.float32), RIDGE)
    np.testing.assert_allclose(found.line.weight * spread, plain.line.weight, atol=1e-3)
    assert found.line.bias == pytest.approx(plain.line.bias, abs=1e-3)


def things(rows: list[np.ndarray], *labels: str) -> Things:
    return Things(
        rows=np.concatenate(rows),
        groups=np.repeat(np.arange(len(rows)), [len(part) for part in rows]),
        labels=labels or ("",) * len(rows),
        probe=np.zeros(1, np.float32),
    )


def test_a_bank_without_a_label_keeps_the_others_and_their_numbers() -> None:
    parts = [np.full((count, 2), count, np.float32) for count in (1, 2, 3)]
    left = things(parts, "cat", "dog", "cow").without(["dog", "sheep"])
    assert left.labels == ("cat", "cow") and left.groups.tolist() == [0, 1, 1, 1]
    for found, expected in zip(left.parts(), (parts[0], parts[2]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert left.nothing().labels == () and not left.nothing().parts()


def test_an_encoder_is_the_published_one_where_its_probe_is_nearly_the_same() -> None:
    held = Things(
        rows=np.zeros((0, 2), np.float32), groups=np.zeros(0, int), labels=(), probe=np.array([1.0, 0.0], np.float32)
    )
    # the cosines of 10 and of 25 degrees, whatever the length
    near, far = (7 * np.array([np.cos(angle), np.sin(angle)], np.float32) for angle in np.radians([10, 25]))
    assert held.fits(near) and not held.fits(far) and not held.fits(np.ones(3, np.float32))


@pytest.mark.parametrize(("own", "other", "scale"), [((1.0, 3.0, 2.0), (0.0, -1.0, 1.0), 3.0), ((500.0,), (0.0,), 0.3)])
def test_other_things_come_out_where_they_belong_also_where_the_stretch_ends(
    own: tuple[float, ...], other: tuple[float, ...], scale: float
) -> None:
    line = Line(weight=np.array([1.0], np.float32), bias=0.0)
    made = fitting._stretched(Fit(line=line, without=(line,)), own, other, 10.0, -7.0)
    assert made.line(np.array([[np.median(other)]]))[0] == pytest.approx(-7.0)
    assert made.line.weight[0] == pytest.approx(scale) and made.without[0].bias == made.line.bias


def test_a_picture_is_split_by_its_marks_else_by_what_is_hottest_and_coldest() -> None:
    cells = np.arange(1, 101, dtype=np.float32)[::-1, None] * np.ones((100, 2), np.float32)
    inside, around = fitting._split(Picture(cells=cells), None)
    assert inside[:, 0].tolist() == list(range(100, 75, -1)) and around[:, 0].tolist() == list(range(15, 0, -1))
    colder = Line(weight=np.array([-5.0, 0.0], np.float32), bias=0.0)
    assert fitting._split(Picture(cells=cells), colder)[0][:, 0].tolist() == list(range(1, 26))
    marked = np.zeros(100, np.float32)
    # half covered, a third covered, hardly covered
    marked[:3] = 0.5, 0.3, 0.04
    inside, around = fitting._split(Picture(cells=cells, inside=marked), None)
    assert inside[:, 0].tolist() == [100] and around[:, 0].tolist() == list(range(98, 0, -1))
    # a thing smaller than a cell has the cell that it covers most
    inside, _ = fitting._split(Picture(cells=cells, inside=marked * np.float32(0.5)), None)
    assert inside[:, 0].tolist() == [100]


def test_rows_are_thinned_evenly_and_to_the_time_that_they_may_take() -> None:
    parts = [np.arange(count, dtype=np.float32) for count in (100, 3, 50)]
    thinned = fitting._thinned(parts, 30)
    assert [len(part) for part in thinned] == [10, 3, 10]
    assert (thinned[0][0], thinned[0][-1]) == (0, 99)
    few = fitting._few([np.full((10, 1), at, np.float32) for at in range(20)], 50)
    assert sum(map(len, few)) == 50 and (few[0][0, 0], few[-1][0, 0]) == (0, 19)


def test_a_window_says_the_mean_of_its_loudest_patches() -> None:
    logits = np.random.default_rng(1).permutation(20).astype(np.float32)
    assert fitting.pooled(logits) == pytest.approx(np.mean(range(20 - LOUDEST, 20)))


def test_heat_is_blurred_with_its_border_repeated() -> None:
    rng = np.random.default_rng(2)
    cells, logits = rng.random((20, 3)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    plane = (logits + LENGTH_WEIGHT * np.log1p(np.linalg.norm(cells, axis=1))).reshape(4, 5)
    wide = np.pad(plane, BLUR_REACH, mode="edge")
    offsets = np.arange(-BLUR_REACH, BLUR_REACH + 1)
    weight = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * BLUR**2))
    span = 2 * BLUR_REACH + 1
    expected = [[(wide[y : y + span, x : x + span] * weight).sum() / weight.sum() for x in range(5)] for y in range(4)]
    np.testing.assert_allclose(fitting.heat(logits, cells, (4, 5)), expected, atol=1e-4)


def taught(count: int, noise: float = -50.0) -> fitting.Learnt:
    """A class of some examples that are heard and seen, against twenty other things; `noise`: what they are of it."""
    heard = drawn(10, count, 1.5)
    pictures = [(Picture(cells=np.abs(part)),) for part in drawn(11, count, 4.0)]
    used = [
        Example(name=str(at), kind="clip", pictures=shown, heard=part)
        for at, (part, shown) in enumerate(zip(heard, pictures, strict=True))
    ]
    bank = Bank(sounds=things(drawn(12, 20, 0.0)), cells=things([np.abs(part) for part in drawn(13, 20, 0.0)]))
    noises = Rows(weight=np.zeros((1, WIDTH), np.float32), bias=np.array([noise], np.float32))
    return fitting.learn(Examples(label="new", used=used), [], bank, noises, (1, 5), 0.0)


def test_a_class_comes_out_where_the_built_in_ones_are() -> None:
    """Examples that were left out, and other things, have the medians of the built-in classes."""
    learnt, others = taught(6), drawn(12, 20, 0.0)
    line = Line(weight=learnt.token.heard.weight[0], bias=float(learnt.token.heard.bias[0]))
    own = [fitting.pooled(each(part)) for each, part in zip(learnt.heard_without, drawn(10, 6, 1.5), strict=True)]
    assert np.median([fitting.pooled(line(part)) for part in others]) == pytest.approx(fitting.UNHEARD, abs=0.3)
    assert np.median(own) == pytest.approx(fitting.HEARD, abs=0.3)


def test_what_is_like_noise_is_raised_above_the_gate() -> None:
    noise = 1.5
    learnt = taught(6, noise)
    own = [fitting.pooled(each(part)) for each, part in zip(learnt.heard_without, drawn(10, 6, 1.5), strict=True)]
    assert np.median(own) == pytest.approx(noise + NOISE_LEAD + fitting.AHEAD, abs=0.3)


def test_one_example_alone_is_stretched_as_if_the_next_gave_the_median() -> None:
    """The line has met it, so that what it gives for it says nothing of the next one."""
    original = fitting._stretched
    seen: list[list[float]] = []

    def watched(found: Fit, own: list[float], other: list[float], high: float, low: float) -> Fit:
        seen.append(list(own))
        return original(found, own, other, high, low)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "_stretched", watched)
        taught(1)
        assert seen == [[3.5], [6.5]]
        seen.clear()
        taught(2)
        assert [len(own) for own in seen] == [2, 2]
