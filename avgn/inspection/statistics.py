"""Counts what a manifest holds: items, labels, sources, sounds and videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from avgn.importers.wav import read_header
from avgn.inspection.boxes import box_statistics
from avgn.inspection.spread import spread
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest

NUM_EXAMPLES = 5


def summarize(manifest: Manifest) -> dict[str, Any]:
    """Count everything that needs no decoding: of every sound only the header is read.

    "labels" counts the sources of each class: sounding, visible, off-screen (sounding alone), silent (visible alone).
    Raises InputError for a manifest without items.
    """
    if not manifest.items:
        raise InputError(f"{manifest.path} has no items: there is nothing to inspect")
    items = manifest.items
    return {
        "manifest": str(manifest.path),
        "items": len(items),
        "kinds": dict(Counter(_kind(item) for item in items)),
        "splits": dict(Counter(item.split for item in items)),
        "datasets": dict(Counter(item.dataset for item in items)),
        "classes": list(manifest.classes),
        "labels": _labels(manifest.classes, items),
        "sources": _sources(items),
        "audio": _audio(items),
        "boxes": box_statistics(items),
        "videos": dict(Counter(item.video for item in items).most_common()),
    }


def lines_of(summary: dict[str, Any]) -> list[str]:
    """Format the summary for people."""
    labels: dict[str, dict[str, int]] = summary["labels"]
    unused = [name for name, counts in labels.items() if not any(counts.values())]
    lines = [f"items: {summary['items']} ({_listed(summary['kinds'])})"]
    lines += [f"{name}: {_listed(summary[name])}" for name in ("splits", "datasets")]
    width = max(map(len, labels))
    lines.append(f"{'class':{width}}  sounding  visible  off-screen  silent")
    for name, counts in labels.items():
        if name not in unused:
            lines.append(
                f"{name:{width}}  {counts['sounding']:8}  {counts['visible']:7}  {counts['off-screen']:10}"
                f"  {counts['silent']:6}"
            )
    if unused:
        more = ", ..." if len(unused) > NUM_EXAMPLES else ""
        lines.append(f"classes that no item has: {len(unused)} ({', '.join(unused[:NUM_EXAMPLES])}{more})")
    for kind, counts in summary["sources"].items():
        lines.append(f"{kind} sources an item: " + ", ".join(f"{n}: {count}" for n, count in counts.items()))
    audio = summary["audio"]
    if audio["files"]:
        lines.append(f"sounds: {audio['files']}, {_spread(audio['seconds'])} s, rates {_listed(audio['rates'])}")
    lines += audio["faults"][:NUM_EXAMPLES]
    boxes = summary["boxes"]
    lines.append(f"boxes: {boxes['count']}, masks: {boxes['masks']}")
    if boxes["count"]:
        lines.append(f"box area in percent of the frame: {_spread(boxes['area'], 100)}")
        lines.append(f"box width by height: {_spread(boxes['aspect'])}")
        lines.append(f"boxes that touch the border: {100 * boxes['touching']:.1f} %")
    lines += [f"suspicious: {sentence}" for sentence in boxes["suspicious"]]
    videos = summary["videos"]
    largest = ", ".join(f"{name} {100 * n / summary['items']:.1f} %" for name, n in list(videos.items())[:NUM_EXAMPLES])
    lines.append(f"videos: {len(videos)}" + (f", largest: {largest}" if len(videos) < summary["items"] else ""))
    return lines


def _kind(item: Item) -> str:
    if item.parts:
        return "pairs side by side"
    return "stills" if item.frame is not None else "videos"


def _labels(classes: Sequence[str], items: Sequence[Item]) -> dict[str, dict[str, int]]:
    found = {name: {"sounding": 0, "visible": 0, "off-screen": 0, "silent": 0} for name in classes}
    for item in items:
        for source in item.sources:
            counts = found[source.label]
            counts["sounding"] += source.sounding
            counts["visible"] += source.on_screen
            counts["off-screen"] += source.sounding and not source.on_screen
            counts["silent"] += source.on_screen and not source.sounding
    return found


def _sources(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    """Count the items by how many sounding sources and how many visible sources they have."""
    sounding = Counter(sum(source.sounding for source in item.sources) for item in items)
    visible = Counter(sum(source.on_screen for source in item.sources) for item in items)
    return {
        kind: {str(n): counts[n] for n in sorted(counts)}
        for kind, counts in (("sounding", sounding), ("visible", visible))
    }


def _audio(items: Iterable[Item]) -> dict[str, Any]:
    paths = dict.fromkeys(path for item in items for path in item.sounds)
    seconds: list[float] = []
    rates: Counter[str] = Counter()
    faults: list[str] = []
    for path in paths:
        try:
            header = read_header(path)
        except InputError as error:
            faults.append(str(error))
            continue
        seconds.append(header.seconds)
        rates[str(header.rate)] += 1
        if header.missing:
            faults.append(f"audio {path} ends {header.missing} bytes before its header says: mend or remove the item")
    return {
        "files": len(paths),
        "seconds": spread(seconds) if seconds else {},
        "rates": dict(rates),
        "faults": faults,
    }


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'unnamed'}: {count}" for name, count in counts.items())


def _spread(values: dict[str, float], scale: float = 1.0) -> str:
    if not values:
        return "unknown"
    low, middle, high = (scale * values[name] for name in ("min", "p50", "max"))
    return f"{low:.3g} to {high:.3g}, median {middle:.3g}"
