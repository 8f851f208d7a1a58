"""Named protocols: how a map becomes the pixels that are compared with a mask. Adding one is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation.canvas import CANVAS, upsample_bilinear
from avgn.evaluation.metrics import at_least_median, min_max, top_pixels
from avgn.runtime.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One row of the protocol table.

    upsample: maps [K, h, w], size (H, W) -> [K, H, W]; normalise: [K, H, W] -> [K, H, W];
    binarise: map [H, W], mask [H, W] -> (B [H, W] bool, whether the order of equal pixels decided).
    """

    name: str
    upsample: Callable[[Array, tuple[int, int]], Array]
    normalise: Callable[[Array], Array]
    binarise: Callable[[Array, Array], tuple[Array, bool]]
    canvas: tuple[int, int] = CANVAS


def _median(score: Array, mask: Array) -> tuple[Array, bool]:
    return at_least_median(score), False


def _same_area(score: Array, mask: Array) -> tuple[Array, bool]:
    return top_pixels(score, int(np.count_nonzero(mask)))


def _min_max(maps: Array) -> Array:
    return min_max(maps)[0]


def _identity(maps: Array) -> Array:
    return maps


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="source-wise", upsample=upsample_bilinear, normalise=_min_max, binarise=_median),
        Protocol(name="adaptive", upsample=upsample_bilinear, normalise=_identity, binarise=_same_area),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; raises InputError that lists the known names."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        known = ", ".join(sorted([*PROTOCOLS, "video"]))
        raise InputError(f"protocol {name!r} is not known: choose from {known}") from None
