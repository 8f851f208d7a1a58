"""Named protocols: how a map becomes the pixels that are compared with a mask. Adding one is one entry.

H x W is what a source is scored on: the whole canvas, or its own picture of several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avgn.evaluation.canvas import Upsample, upsample_bicubic, upsample_bilinear
from avgn.evaluation.metrics import above_median, above_share_of_max, at_least_median, min_max, top_pixels
from avgn.runtime.arrays import Array
from avgn.runtime.errors import InputError

View = Literal["own", "whole", "misread"]
Silence = Literal["normalised", "softmax"]
Rule = Literal["median", "area", "value"]

CLASS_MODES = ("given", "predicted")
VIDEO = "video"
ALL = "all"
SOLO_THRESHOLD, SYNTHETIC_THRESHOLD, DUET_THRESHOLD = 0.1, 0.5, 0.2


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Describes one row of the protocol table.

    upsample: maps [K, h, w], size (H, W) -> [K, H, W]; normalise: [..., H, W] -> [..., H, W];
    binarise: map [H, W], mask [H, W] -> (B [H, W] bool, whether the order of equal pixels decided).
    `rule`: what binarise does, for floors and ceilings: it takes the pixels from the "median" up, as many of the
    largest as the mask has ("area"), or those above a "value" whatever the mask; only the last is given the map after
    `normalise`, the others look at the order of pixels alone. `flat_is_chance`: a flat map is scored as a random one.
    `view`: what a source of a concatenated pair is scored on; "misread" is its own picture with boxes as the release
    reads them. `single`: for pictures of one source. `ranked`: maps are ranked by their confidence, with negatives.
    `silence`: the maps that NSA looks at, None where the protocol has none. `alpha`: the weight of the map beside an
    object prior. `caution`: what a reader of the numbers must know.
    """

    name: str
    upsample: Upsample
    normalise: Callable[[Array], Array]
    binarise: Callable[[Array, Array], tuple[Array, bool]]
    rule: Rule
    flat_is_chance: bool = False
    view: View = "whole"
    single: bool = False
    ranked: bool = False
    silence: Silence | None = None
    alpha: float = 1.0
    modes: tuple[str, ...] = CLASS_MODES
    caution: str = ""

    def binary(self, score: Array, mask: Array) -> tuple[Array, bool]:
        """Binarise one upsampled map: (B [H, W], whether the order of equal pixels decided)."""
        return self.binarise(self.normalise(score) if self.rule == "value" else score, mask)


def _at_least_median(score: Array, mask: Array) -> tuple[Array, bool]:
    return at_least_median(score), False


def _above_median(score: Array, mask: Array) -> tuple[Array, bool]:
    return above_median(score), False


def _at_least_half(score: Array, mask: Array) -> tuple[Array, bool]:
    return np.asarray(score >= 0.5), False


def _same_area(score: Array, mask: Array) -> tuple[Array, bool]:
    return top_pixels(score, int(np.count_nonzero(mask)))


def share_of_max(share: float) -> Callable[[Array, Array], tuple[Array, bool]]:
    """Make DSOL's rule: S > share * max(S)."""
    return lambda score, mask: (above_share_of_max(score, share), False)


def fixed_range(limit: float) -> Callable[[Array], Array]:
    """Make SLAVC's normalisation: -limit..limit becomes 0..1, and values outside it stay outside."""
    return lambda maps: (maps / limit + 1) / 2


def scaled(maps: Array) -> Array:
    """Scale each map from its minimum and maximum to 0..1; flat maps become zeros."""
    return min_max(maps)[0]


def as_it_is(maps: Array) -> Array:
    return maps


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="source-wise",
            upsample=upsample_bilinear,
            normalise=scaled,
            binarise=_at_least_median,
            rule="median",
            flat_is_chance=True,
            view="own",
            silence="normalised",
        ),
        Protocol(
            name="frame-wise",
            upsample=upsample_bilinear,
            normalise=scaled,
            binarise=_at_least_median,
            rule="median",
            flat_is_chance=True,
            silence="normalised",
        ),
        Protocol(name="adaptive", upsample=upsample_bilinear, normalise=as_it_is, binarise=_same_area, rule="area"),
        Protocol(
            name="lvs",
            upsample=upsample_bilinear,
            normalise=scaled,
            binarise=_above_median,
            rule="median",
            flat_is_chance=True,
            single=True,
            silence="normalised",
            modes=("given",),
        ),
        Protocol(
            name="ezvsl",
            upsample=upsample_bilinear,
            normalise=scaled,
            binarise=_at_least_median,
            rule="median",
            flat_is_chance=True,
            single=True,
            silence="normalised",
            alpha=0.4,
            modes=("given",),
        ),
        # a map of cosines divided by the temperature lies within -1/tau..1/tau: as 0..1 it is (cosine + 1) / 2
        Protocol(
            name="slavc",
            upsample=upsample_bicubic,
            normalise=fixed_range(1.0),
            binarise=_at_least_half,
            rule="value",
            single=True,
            ranked=True,
            silence="normalised",
            modes=("given",),
        ),
        Protocol(
            name="dsol",
            upsample=upsample_bilinear,
            normalise=as_it_is,
            binarise=share_of_max(SOLO_THRESHOLD),
            rule="value",
            silence="softmax",
            modes=("given",),
        ),
        # the release's other errors are in its data layer and can't be expressed here: the second source of a pair is
        # that of the next row, and sound keeps its own sample rate
        Protocol(
            name="release",
            upsample=upsample_bicubic,
            normalise=scaled,
            binarise=_at_least_median,
            rule="median",
            flat_is_chance=True,
            view="misread",
            modes=("given",),
            caution="protocol release repeats known errors of the public release (boxes of MUSIC read as corners): "
            "for regression only, its numbers say nothing about a model",
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Find a protocol by its name. Raises InputError that lists the known names."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        known = ", ".join(sorted([*PROTOCOLS, VIDEO, ALL]))
        raise InputError(f"protocol {name!r} is not known: choose from {known}") from None
