"""Chooses the protocols that suit a manifest and a model, and fits them to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from avgn.config import Config, system_in
from avgn.evaluation.map_kinds import why_no_classes
from avgn.evaluation.protocols import (
    ALL,
    DUET_THRESHOLD,
    PROTOCOLS,
    SOLO_THRESHOLD,
    SYNTHETIC_THRESHOLD,
    VIDEO,
    Protocol,
    find_protocol,
    fixed_range,
    share_of_max,
)
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Holds the protocols of still scenes, whether videos are scored, and why protocols were left out: {name:
    reason}."""

    protocols: tuple[Protocol, ...]
    video: bool
    left_out: dict[str, str]


def choose_protocols(
    names: Sequence[str],
    manifest: Manifest,
    modes: Sequence[str],
    info: BundleInfo | None = None,
    dsol_share: float | None = None,
) -> Choice:
    """Find the protocols of these names; "all" stands for those that suit, and says why the others don't.

    info: of the model, None where there is none. dsol_share: the f of DSOL's threshold f * max, in place of the one
    that goes with the manifest's data sets. Raises InputError for an unknown name, and for one that was asked for and
    does not suit.
    """
    if not names:
        raise InputError(f"no protocol was named: choose from {', '.join([*PROTOCOLS, VIDEO, ALL])}")
    if dsol_share is not None and not 0 < dsol_share < 1:
        raise InputError(f"the share of DSOL's threshold must lie between 0 and 1, got {dsol_share}: .1, .5 or .2")
    known: list[str] = []
    for name in names:
        for one in [*PROTOCOLS, VIDEO] if name == ALL else [name]:
            if one not in known:
                known.append(one)
    chosen: list[Protocol] = []
    left_out: dict[str, str] = {}
    video = False
    for name in known:
        reason = _video_reason(manifest, info) if name == VIDEO else _reason(name, manifest, modes, info, dsol_share)
        if reason and name in names:
            raise InputError(f"protocol {name} does not suit {manifest.path}: {reason}")
        if reason:
            left_out[name] = reason
        elif name == VIDEO:
            video = True
        else:
            chosen.append(_fitted(find_protocol(name), manifest, info, dsol_share))
    return Choice(protocols=tuple(chosen), video=video, left_out=left_out)


def temperature(info: BundleInfo | None) -> float:
    """Return what the model's cosines are divided by to become scores; the method's own where a bundle names none."""
    return float(_config(info).get("temperature", Config.temperature))


def map_limit(info: BundleInfo | None) -> float:
    """Return the end of the range of the model's maps: 1 for cosines, 1/tau where they are divided by tau."""
    system = system_in(_config(info))
    return 1 / temperature(info) if system is not None and system.scaled_maps else 1.0


def _config(info: BundleInfo | None) -> dict[str, Any]:
    config = info.model.get("config") if info is not None else None
    return config if isinstance(config, dict) else {}


def _fitted(protocol: Protocol, manifest: Manifest, info: BundleInfo | None, dsol_share: float | None) -> Protocol:
    """Return the protocol with what it takes from the data and from the model."""
    if protocol.name == "slavc":
        return replace(protocol, normalise=fixed_range(map_limit(info)))
    if protocol.name == "dsol":
        share = dsol_share or _dsol_shares(manifest).pop()
        return replace(protocol, binarise=share_of_max(share or SOLO_THRESHOLD))
    return protocol


def _reason(
    name: str, manifest: Manifest, modes: Sequence[str], info: BundleInfo | None, dsol_share: float | None
) -> str:
    """Say why a protocol does not suit, and what to do; empty if it suits."""
    protocol = find_protocol(name)
    if not set(modes) & set(protocol.modes):
        return f"it scores classes {' and '.join(protocol.modes)} only, add --classes {protocol.modes[0]}"
    several = sum(_num_sources(item) > 1 for item in manifest.items)
    if protocol.single and several:
        return f"it is for one source an image and {several} of {len(manifest.items)} items have several"
    if protocol.silence == "softmax":
        if info is not None and (reason := why_no_classes(info)):
            return f"it compares the maps of classes and {reason}"
        shares = _dsol_shares(manifest)
        if dsol_share is None and (len(shares) != 1 or None in shares):
            sets = ", ".join(sorted({repr(item.dataset) for item in manifest.items})) or "none"
            return (
                "its threshold goes with solo, synthetic or duet data and the data sets here are "
                f"{sets}, force it with --dsol-threshold"
            )
    return ""


def _video_reason(manifest: Manifest, info: BundleInfo | None) -> str:
    if info is None:
        return "it needs a model"
    if reason := why_no_classes(info):
        return f"it needs classes and {reason}"
    return "" if any(item.video_file is not None for item in manifest.items) else "no item has a video_file"


def _num_sources(item: Item) -> int:
    return len({(source.label, source.part) for source in item.sources if source.sounding and source.on_screen})


def _dsol_shares(manifest: Manifest) -> set[float | None]:
    """Return DSOL's f of every item, None if its data set doesn't say."""
    shares: set[float | None] = set()
    for item in manifest.items:
        if item.parts or "synth" in item.dataset:
            shares.add(SYNTHETIC_THRESHOLD)
        else:
            shares.add(SOLO_THRESHOLD if "solo" in item.dataset else DUET_THRESHOLD if "duet" in item.dataset else None)
    return shares
