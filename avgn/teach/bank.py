"""What other things sound and look like: features of free recordings and pictures, which a new class must not fire on.

They were computed by the published encoders, rounded to 8 bits, and ship as one small file; NOTICE names the material.

Legend: M rows, D width of features, G groups: rows of one recording or picture.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.arrays import Floats
from avgn.runtime.errors import InputError

NAME = "bank.npz"
FORMAT = "avgn-teach-bank 1"
# what one picture of random squares and one chord give, to know encoders that were trained further
SAME_ENCODER = 0.95


@dataclass(frozen=True, kw_only=True)
class Things:
    """Features [M, D] float32 of other things; `labels` [G] of the groups, "" for what has no name (noise, walls)."""

    rows: Floats
    groups: NDArray[np.int64]
    labels: tuple[str, ...]
    probe: Floats

    def without(self, labels: Collection[str]) -> Things:
        """Leave out what is called so."""
        kept = [at for at, label in enumerate(self.labels) if label not in labels]
        inside = np.isin(self.groups, kept)
        number = {group: at for at, group in enumerate(kept)}
        groups = np.array([number[group] for group in self.groups[inside].tolist()], np.int64)
        names = tuple(self.labels[at] for at in kept)
        return Things(rows=self.rows[inside], groups=groups, labels=names, probe=self.probe)

    def nothing(self) -> Things:
        """Leave everything out."""
        return self.without(self.labels)

    def parts(self) -> list[Floats]:
        """The rows of each group."""
        return [self.rows[self.groups == group] for group in range(len(self.labels))]

    def fits(self, probe: Floats) -> bool:
        """Whether an encoder that makes this of the probe is the published one, in whatever precision."""
        if probe.shape != self.probe.shape:
            return False
        product = float(np.sum(probe * self.probe))
        return product >= SAME_ENCODER * float(np.linalg.norm(probe) * np.linalg.norm(self.probe))


@dataclass(frozen=True, kw_only=True)
class Bank:
    sounds: Things
    cells: Things


def read_bank() -> Bank:
    """The package's own. Raises InputError where the file is missing or damaged."""
    source = files("avgn.teach") / NAME
    try:
        with np.load(io.BytesIO(source.read_bytes()), allow_pickle=False) as held:
            if str(held["format"]) != FORMAT:
                raise ValueError("unknown format")
            return Bank(sounds=_things(held, "sounds"), cells=_things(held, "cells"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} can't be read ({error}): install avgn again") from None


def pack(things: dict[str, Things]) -> bytes:
    """The file's bytes."""
    arrays: dict[str, NDArray[np.generic]] = {"format": np.array(FORMAT)}
    for kind, each in things.items():
        step = np.float32(max(1e-6, float(each.rows.max())) / 255)
        arrays |= {
            f"{kind}_rows": np.round(each.rows / step).astype(np.uint8),
            f"{kind}_step": np.array(step),
            f"{kind}_groups": each.groups.astype(np.int16),
            f"{kind}_labels": np.array(each.labels),
            f"{kind}_probe": each.probe.astype(np.float16),
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _things(held: np.lib.npyio.NpzFile, kind: str) -> Things:
    rows = held[f"{kind}_rows"].astype(np.float32) * np.float32(held[f"{kind}_step"])
    groups = held[f"{kind}_groups"].astype(np.int64)
    labels = tuple(str(label) for label in held[f"{kind}_labels"])
    if rows.ndim != 2 or groups.shape != (len(rows),) or groups.max() >= len(labels):
        raise ValueError("its arrays don't belong together")
    return Things(rows=rows, groups=groups, labels=labels, probe=held[f"{kind}_probe"].astype(np.float32))
