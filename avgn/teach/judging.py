"""Hears and sees with class tokens in NumPy, as the graphs do: to verify those, and to judge examples left out.

Legend: N patches, P cells, D width of features, K classes, R rows of all of them, h x w the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import BundleInfo
from avgn.teach.fitting import heat
from avgn.teach.tokens import Rows, Token
from avgn.world.settings import LOUDEST, NOISE_LEAD, NOISE_WEIGHT, SEEN_OFFSET

# what a class that faces show is taken for where there is no face detector
NO_FACE = -15.0


class Judge:
    """Tokens [K] as two tables of rows."""

    def __init__(self, tokens: Sequence[Token], noises: Rows, info: BundleInfo) -> None:
        self.tokens, self.noises, self.grid = tuple(tokens), noises, info.grid
        self._heard = np.concatenate([token.heard.weight for token in tokens])
        self._heard_bias = np.concatenate([token.heard.bias for token in tokens])
        self._heard_at = _starts([len(token.heard) for token in tokens])
        self._seen = [k for k, token in enumerate(tokens) if not token.by_face]

    def hear(self, features: Floats) -> Floats:
        """Patches' features [N, D] -> log-odds [K] of the mean of the loudest patches."""
        rows = features @ self._heard.T + self._heard_bias
        classes = np.maximum.reduceat(rows, self._heard_at, axis=1)
        return pool(self.gate(classes, features))

    def gate(self, logits: Floats, features: Floats) -> Floats:
        """Logits [N, K] less where noise is ahead of them."""
        noise = self.noises(features).max(axis=1, keepdims=True)
        return np.asarray(logits - NOISE_WEIGHT * np.maximum(0, noise + NOISE_LEAD - logits), np.float32)

    def see(self, cells: Floats) -> tuple[Floats, Floats]:
        """Cells [P, D] of a picture -> log-odds [K], and maps [K, h, w] of logits."""
        maps = np.full((len(self.tokens), *self.grid), NO_FACE + SEEN_OFFSET, np.float32)
        for k in self._seen:
            rows = self.tokens[k].seen(cells)
            most = rows.max(axis=1)
            logits = np.log(np.exp(rows - most[:, None]).sum(axis=1)) + most
            maps[k] = heat(logits, cells, self.grid)
        return maps.reshape(len(maps), -1).max(axis=1) - SEEN_OFFSET, maps


def pool(logits: Floats) -> Floats:
    """Log-odds of patches [N, K] -> of a window [K]."""
    return np.asarray(np.sort(logits, axis=0)[-LOUDEST:].mean(axis=0), np.float32)


def _starts(counts: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.cumsum([0, *counts[:-1]])
