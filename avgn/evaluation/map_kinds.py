"""Whose a model's maps are: of classes, of the whole mixture, or of sources without a name."""

from __future__ import annotations

from typing import Literal

from avgn.runtime.bundle_schema import BundleInfo, source_names

MapKind = Literal["per class", "shared-map", "matched"]


def map_kind(info: BundleInfo) -> MapKind:
    """Choose how the maps of a model are given to the sources of an item.

    "per class": the map of its class; "shared-map": one map for the whole mixture is that of every source; "matched":
    the maps have no names, and the truth says which is whose.
    """
    if info.has_presence:
        return "per class"
    if len(info.classes) == 1:
        return "shared-map"
    return "matched" if info.classes == source_names(len(info.classes)) else "per class"


def why_no_classes(info: BundleInfo) -> str:
    """Say why a model's maps tell nothing about classes; empty if they do."""
    reasons: dict[MapKind, str] = {
        "per class": "",
        "shared-map": "this model gives one map for the whole mixture",
        "matched": "this model gives maps of sources without a name",
    }
    return reasons[map_kind(info)]
