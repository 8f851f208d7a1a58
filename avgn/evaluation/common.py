"""Fits a model and a manifest of other classes to each other: what both know is scored, and the rest is said.

B batch, K classes of the model, C of them that the manifest has too, T samples, h x w the map grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from avgn.evaluation.inference import check_classes
from avgn.evaluation.map_kinds import why_no_classes
from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import BundleInfo, Joint, Thresholds
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest

# names that a line lists before it only counts
MOST_NAMES = 6


@dataclass(frozen=True, kw_only=True)
class Common:
    """Holds what model and manifest have in common.

    manifest: with the sources of common classes alone. at: places [C] of the common classes among the model's, None
    where they are all the model's. note: what was left out, in one line; empty for nothing.
    """

    manifest: Manifest
    at: tuple[int, ...] | None
    note: str

    def narrow(self, engine: Engine) -> Engine:
        """Return the engine with the common classes alone."""
        return engine if self.at is None else _Narrow(engine, self.at)

    def of(self, thresholds: tuple[Array, Array] | None) -> tuple[Array, Array] | None:
        """Return thresholds (audio [K], visual [K]) of the common classes."""
        if thresholds is None or self.at is None:
            return thresholds
        audio, visual = (np.asarray(values)[list(self.at)] for values in thresholds)
        return audio, visual

    def narrow_rule(self, rule: Joint) -> Joint:
        """Return the joint rule of the common classes."""
        return rule if self.at is None else replace(rule, thresholds=_few(rule.thresholds, self.at))

    def widen_rule(self, found: Joint, count: int) -> Joint:
        """Return the joint rule of all K = `count` classes; the others take the mean of the thresholds found."""
        if self.at is None:
            return found
        thresholds = [float(np.mean(found.thresholds))] * count
        for place, value in zip(self.at, found.thresholds, strict=True):
            thresholds[place] = value
        return replace(found, thresholds=tuple(thresholds))

    def widen(self, found: Thresholds, before: Thresholds) -> Thresholds:
        """Return the model's thresholds [K] with those that were found [C] in their places."""
        if self.at is None:
            return found
        audio, visual = list(before.audio), list(before.visual)
        for place, heard, seen in zip(self.at, found.audio, found.visual, strict=True):
            audio[place], visual[place] = heard, seen
        return Thresholds(audio=tuple(audio), visual=tuple(visual))


def find_common(info: BundleInfo, manifest: Manifest) -> Common:
    """Find what a model and a manifest have in common.

    Sources of other classes are left out, and with them the items that show nothing else. Raises InputError where no
    class is common, and where no item is left.
    """
    if tuple(manifest.classes) == info.classes or why_no_classes(info):
        return Common(manifest=manifest, at=None, note="")
    at = tuple(k for k, name in enumerate(info.classes) if name in manifest.classes)
    if not at:
        check_classes(info, manifest)
    classes = tuple(info.classes[k] for k in at)
    items = []
    emptied = lost = 0
    for item in manifest.items:
        sources = tuple(source for source in item.sources if source.label in classes)
        if item.sources and not sources:
            emptied += 1
            continue
        lost += len(sources) < len(item.sources)
        items.append(replace(item, sources=sources))
    fewer = [name for name in manifest.classes if name not in classes]
    if manifest.items and not items:
        raise InputError(
            f"{manifest.path} shows none of the {len(classes)} classes that it has in common with the model "
            f"({_names(classes)}): use data made for this model"
        )
    parts = []
    if fewer:
        cost = f"{emptied} of {len(manifest.items)} items are left out"
        cost += f", {lost} lose some of their sources" if lost else ""
        parts.append(f"only the manifest has {_names(fewer)} ({cost})")
    if more := [name for name in info.classes if name not in classes]:
        parts.append(f"only the model has {_names(more)}")
    note = f"only the {len(classes)} common classes count: {'; '.join(parts)}" if parts else ""
    whole = len(at) == len(info.classes)
    return Common(manifest=replace(manifest, classes=classes, items=tuple(items)), at=None if whole else at, note=note)


class _Narrow:
    """Wraps an engine so that it says nothing of the classes that are not common."""

    def __init__(self, engine: Engine, at: tuple[int, ...]) -> None:
        self._engine, self._at = engine, list(at)
        self.name = engine.name
        info = engine.info
        thresholds = Thresholds(
            audio=_few(info.thresholds.audio, at) if info.thresholds.audio else (),
            visual=_few(info.thresholds.visual, at),
        )
        joint = info.joint and replace(info.joint, thresholds=_few(info.joint.thresholds, at))
        self.info = replace(info, classes=tuple(info.classes[k] for k in at), thresholds=thresholds, joint=joint)

    def run_audio(self, waveform: Array) -> dict[str, Array]:
        """Run the audio half: the sources [B, K, D] stay whole, which the image half asks for."""
        heard = self._engine.run_audio(waveform)
        return {**heard, "audio_prob": heard["audio_prob"][:, self._at]}

    def run_image(self, image: Array, sources: Array) -> dict[str, Array]:
        """Run the image half: maps [B, C, h, w] and visual_prob [B, C]."""
        return {name: values[:, self._at] for name, values in self._engine.run_image(image, sources).items()}


def _few(values: Sequence[float], at: Sequence[int]) -> tuple[float, ...]:
    return tuple(values[k] for k in at)


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
