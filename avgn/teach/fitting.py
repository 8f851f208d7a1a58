"""From examples to class tokens whose logits mean what those of the built-in classes mean.

A new row is a direction that logistic regression finds, stretched and shifted so that examples that it never met, and
other things, come out where the built-in classes put theirs: what is heard and seen can then be compared.

Legend: N patches, P cells, D width of features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.image import import_cv2
from avgn.teach.bank import Bank, Things
from avgn.teach.examples import Examples, Picture
from avgn.teach.fit import Fit, Line, fit, side
from avgn.teach.tokens import Rows, Token
from avgn.world.settings import BLUR, BLUR_REACH, LENGTH_WEIGHT, LOUDEST, NOISE_LEAD

# the ridges that did best on development scenes
SOUND_RIDGE, CELL_RIDGE = 30.0, 3.0
# of the spread of all features, what each one's own is raised by
SOUND_FLOOR, CELL_FLOOR = 0.05, 0.3
# log-odds heard of a clip that was left out, and of other sounds: medians of the built-in classes
HEARD, UNHEARD = 2.5, -7.0
# how far a sound that is like noise must be ahead of it beyond where the graph's gate begins
AHEAD = 1.0
# largest logits of a picture of the thing and of one of other things: medians of the built-in classes
SEEN, UNSEEN = 36.0, 9.0
# what is taken off the row of a class that nothing shows
NEVER_SEEN = -60.0
# what the next example gives where there is one alone, which says nothing of that: the median on development material
NEXT_HEARD, NEXT_SEEN = 3.5, 6.5
# no stretch is beyond these
STRETCH = (0.3, 3.0)
# cells of a picture that nobody marked: the hottest ones are taken for the thing, the coldest ones for what is around
HOTTEST, COLDEST, ROUNDS = 25, 15, 2
AROUND_WEIGHT = 0.3
# rows of each side at most, for the time that they take: patches of the class and of the others' examples, cells of
# other things, of the class and around it
MOST_PATCHES, MOST_FOREIGN = 500, 300
MOST_CELLS, MOST_INSIDE, MOST_AROUND = 700, 400, 150


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """A class's token, and for each example the token that never met it (by its place in `sounds` and `seen`)."""

    token: Token
    heard_without: tuple[Line, ...]
    seen_without: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What was learnt, class by class, and what it was learnt against."""

    pairs: tuple[tuple[Examples, Learnt], ...]
    bank: Bank
    noises: Rows
    notes: list[str]


def learn(
    examples: Examples, others: Sequence[Examples], bank: Bank, noises: Rows, grid: tuple[int, int], threshold: float
) -> Learnt:
    """Fit one class against the others that are taught and against the bank; it must have sounds.

    `noises`: rows of what the graph counts as noise.
    """
    heard = _fit_sounds(examples, others, bank.sounds, noises)
    seen = fit_pictures(examples, others, bank.cells, grid)
    token = Token(
        label=examples.label,
        heard=_rows(heard.line),
        seen=Rows(weight=np.zeros((1, bank.cells.rows.shape[1]), np.float32), bias=np.array([NEVER_SEEN], np.float32))
        if seen is None
        else _rows(seen.line),
        threshold=threshold,
    )
    return Learnt(token=token, heard_without=heard.without, seen_without=() if seen is None else seen.without)


def pooled(logits: Floats) -> float:
    """What a window says: the mean of its loudest patches [N]."""
    return float(np.sort(logits)[-LOUDEST:].mean())


def length_of(cells: Floats) -> Floats:
    """[.., P]: how much the cells [.., P, D] see."""
    return np.asarray(np.sqrt(np.sum(cells * cells, axis=-1)), np.float32)


def heat(logits: Floats, cells: Floats, grid: tuple[int, int]) -> Floats:
    """Logits [P] of a picture's cells [P, D] as the graph maps them [h, w]."""
    offsets = np.arange(-BLUR_REACH, BLUR_REACH + 1)
    line = np.exp(-0.5 * (offsets / BLUR) ** 2)
    line /= line.sum()
    plane = (logits + LENGTH_WEIGHT * np.log1p(length_of(cells))).reshape(grid).astype(np.float32)
    cv2 = import_cv2()
    return np.asarray(cv2.sepFilter2D(plane, -1, line, line, borderType=cv2.BORDER_REPLICATE), np.float32)


def _rows(line: Line) -> Rows:
    # what float16 holds is stored in half the bytes, and loses nothing by it
    weight = line.weight.astype(np.float16).astype(np.float32)
    return Rows(weight=weight[None], bias=np.array([line.bias], np.float32))


def _fit_sounds(examples: Examples, others: Sequence[Examples], things: Things, noises: Rows) -> Fit:
    parts = [each.heard for each in examples.sounds if each.heard is not None]
    foreign = [each.heard for other in others for each in other.sounds if each.heard is not None]
    elsewhere = things.parts() + _thinned(foreign, MOST_FOREIGN)
    negative = side(elsewhere)
    found = fit(side(_thinned(parts, MOST_PATCHES)), negative, _spread(negative.rows, SOUND_FLOOR), SOUND_RIDGE)
    own = [pooled(line(part)) for line, part in zip(found.without, parts, strict=True)]
    noise = [pooled(noises(part).max(axis=1)) for part in parts]
    wanted = max(HEARD, float(np.median(noise)) + NOISE_LEAD + AHEAD)
    other = [pooled(found.line(part)) for part in elsewhere]
    return _stretched(found, own if len(own) > 1 else [NEXT_HEARD], other, wanted, UNHEARD)


def fit_pictures(examples: Examples, others: Sequence[Examples], things: Things, grid: tuple[int, int]) -> Fit | None:
    """What a class is seen by; None where no picture shows it."""
    pictures = [each.pictures for each in examples.seen]
    if not pictures:
        return None
    foreign = [picture for other in others for each in other.seen for picture in each.pictures]
    elsewhere = _few(things.parts(), MOST_CELLS) + _few([_brightest(picture) for picture in foreign], MOST_FOREIGN)
    spread = _spread(np.concatenate(elsewhere), CELL_FLOOR)
    found: Fit | None = None
    for last in [False] * (ROUNDS - 1) + [True]:
        line = None if found is None else found.line
        chosen = [[_split(picture, line) for picture in some] for some in pictures]
        inside = [np.concatenate([each for each, _ in some]) for some in chosen]
        positive = side(_thinned(inside, MOST_INSIDE))
        around = _thinned([out for some in chosen for _, out in some if len(out)], MOST_AROUND)
        negative = side(elsewhere)
        if around:
            extra = side(around)
            total = 1 + AROUND_WEIGHT
            negative = type(negative)(
                rows=np.concatenate([negative.rows, extra.rows]),
                weights=np.concatenate([negative.weights / total, extra.weights * (AROUND_WEIGHT / total)]),
                groups=np.concatenate([negative.groups, negative.groups.max() + 1 + extra.groups]),
            )
        found = fit(positive, negative, spread, CELL_RIDGE, left_out=last)
    assert found is not None
    own = [
        max(_peak(line, picture, grid) for picture in some) for line, some in zip(found.without, pictures, strict=True)
    ]
    other = [float((found.line(part) + LENGTH_WEIGHT * np.log1p(length_of(part))).max()) for part in things.parts()]
    other += [_peak(found.line, picture, grid) for picture in foreign]
    return _stretched(found, own if len(own) > 1 else [NEXT_SEEN], other, SEEN, UNSEEN)


def _stretched(found: Fit, own: Sequence[float], other: Sequence[float], high: float, low: float) -> Fit:
    """Put the medians of both kinds where those of the built-in classes are."""
    above, below = float(np.median(own)), float(np.median(other))
    scale = float(np.clip((high - low) / max(1e-3, above - below), *STRETCH))
    # where the stretch has an end, other things stay where they belong
    shift = low - scale * below
    return Fit(
        line=found.line.stretched(scale, shift), without=tuple(line.stretched(scale, shift) for line in found.without)
    )


def _spread(rows: Floats, floor: float) -> Floats:
    return np.asarray(rows.std(axis=0) + floor * rows.std(), np.float32)


def _split(picture: Picture, line: Line | None) -> tuple[Floats, Floats]:
    """Cells of the thing, and cells around it."""
    cells = picture.cells
    if picture.inside is not None:
        inside = picture.inside >= min(0.5, float(picture.inside.max()))
        return cells[inside], cells[picture.inside < 0.05]
    score = length_of(cells) if line is None else line(cells) + LENGTH_WEIGHT * np.log1p(length_of(cells))
    order = np.argsort(-score, kind="stable")
    return cells[order[:HOTTEST]], cells[order[-COLDEST:]]


def _brightest(picture: Picture) -> Floats:
    """The cells of another class's picture that see the most."""
    order = np.argsort(-length_of(picture.cells), kind="stable")
    return picture.cells[order[:8]]


def _few(parts: list[Floats], most: int) -> list[Floats]:
    """As many groups, evenly spread, as have `most` rows together."""
    total = sum(map(len, parts))
    if total <= most:
        return parts
    share = max(1, round(len(parts) * most / total))
    return [parts[at] for at in np.linspace(0, len(parts) - 1, share).round().astype(int)]


def _thinned(parts: list[Floats], most: int) -> list[Floats]:
    """All groups, each with so many of its rows, evenly spread, that there are about `most` together."""
    each = max(2, most // max(1, len(parts)))
    return [part[np.linspace(0, len(part) - 1, min(len(part), each)).round().astype(int)] for part in parts]


def _peak(line: Line, picture: Picture, grid: tuple[int, int]) -> float:
    return float(heat(line(picture.cells), picture.cells, grid).max())
