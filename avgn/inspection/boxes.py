"""Computes statistics of boxes, and says what suggests that they are in another format than expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from avgn.inspection.spread import spread
from avgn.runtime.manifest import Box, Item, Source

WHOLE_SHARE = 0.98
TINY_SHARE = 0.001
EDGE_SHARE = 0.005
# shares of the boxes above which each finding is suspicious
SUSPICIOUS_SHARE = 0.1
CORNER_SHARE = 0.3
SAME_SHARE = 0.5


def box_statistics(items: Iterable[Item]) -> dict[str, Any]:
    """Compute counts of boxes and masks, area (share of the frame), aspect of normalised sides, share at the border.

    "suspicious" lists sentences. A source's track counts with all its boxes.
    """
    sources = [source for item in items for source in item.sources]
    boxes = [box for source in sources for box in boxes_of(source)]
    found: dict[str, Any] = {
        "count": len(boxes),
        "masks": sum(source.mask is not None for source in sources),
        "suspicious": _unboxed(sources),
    }
    if not boxes:
        return found
    corners = np.array(boxes)
    width, height = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    area = width * height
    low, high = corners <= EDGE_SHARE, corners >= 1 - EDGE_SHARE
    found["area"] = spread(area.tolist())
    found["aspect"] = spread((width / height).tolist())
    found["touching"] = float(np.mean(low[:, 0] | low[:, 1] | high[:, 2] | high[:, 3]))
    common, times = Counter(boxes).most_common(1)[0]
    checks = (
        (int((area >= WHOLE_SHARE).sum()), SUSPICIOUS_SHARE, "cover the whole frame: real boxes may be missing"),
        (
            int((area < TINY_SHARE).sum()),
            SUSPICIOUS_SHARE,
            "cover less than a thousandth of the frame: were pixels normalised twice?",
        ),
        (
            int((high[:, 2] & high[:, 3] & (area < WHOLE_SHARE)).sum()),
            CORNER_SHARE,
            "end in the lower right corner: were corners read as x, y, w, h?",
        ),
        (times if len(boxes) >= 10 else 0, SAME_SHARE, f"are the same, {[round(value, 3) for value in common]}"),
    )
    found["suspicious"] += [
        f"{count} of {len(boxes)} boxes {what}" for count, share, what in checks if count > share * len(boxes)
    ]
    return found


def boxes_of(source: Source) -> list[Box]:
    """Return the boxes of a source: those of its track if it has one."""
    if source.track is not None:
        return [box for box in source.track if box is not None]
    return list(source.boxes)


def _unboxed(sources: list[Source]) -> list[str]:
    """Return a sentence if some visible sounding sources have a box or mask but too many have none."""
    visible = [source for source in sources if source.sounding and source.on_screen]
    without = sum(not boxes_of(source) and source.mask is None for source in visible)
    if without == len(visible) or without <= SUSPICIOUS_SHARE * len(visible):
        return []
    return [
        f"{without} of {len(visible)} visible sounding sources have no box: were x, y, w, h read as corners, "
        "which leaves most boxes empty?"
    ]
