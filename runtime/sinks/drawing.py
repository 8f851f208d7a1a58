"""Results drawn on pictures: heat maps, boxes, labels, and what sounds off-screen.

Heat is coloured on a small canvas and then resized: no float work at full resolution.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from avgn.runtime.arrays import Pixels
from avgn.runtime.decision import Heard
from avgn.runtime.image import import_cv2, upsample_map
from avgn.runtime.regions import min_max
from avgn.runtime.sinks.labels import GRAY, WHITE, Labels
from avgn.runtime.sinks.text import drawable

Color = tuple[int, int, int]

CANVAS = 96
STRENGTH = 0.65
FLOOR = 0.3
GOLDEN_TURN = 0.61803398875


@lru_cache(maxsize=1024)
def color_of(index: int) -> Color:
    """Return the colour of class `index`: neighbours in the list are far apart on the wheel."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * GOLDEN_TURN) % 1.0, 0.85, 1.0)
    return (round(255 * red), round(255 * green), round(255 * blue))


def draw_sources(rgb: Pixels, sources: Sequence[Heard], state: str) -> Pixels:
    """Copy the frame [H, W, 3] uint8 and draw the sources of a result on it, and its state where that is "unknown".

    The percentages are the decision's certainty, not the model's probability of the moment.
    """
    shown = [source for source in sources if source.on_screen]
    drawn = _blend_heat(rgb, shown) if shown else rgb.copy()
    height, width = drawn.shape[:2]
    line = max(1, round(min(height, width) / 240))
    labels = Labels(drawn, 4 * line)
    for source in shown:
        _draw_source(drawn, source, line)
    for source in shown:
        assert source.box is not None
        labels.put(_name(source), percent(source), color_of(source.index), _anchor(drawn, source.box))
    for source in sources:
        if not source.on_screen:
            labels.put_right(f"off-screen: {_name(source)}", percent(source), color_of(source.index))
    if state == "unknown":
        labels.put_right("unknown sound", "", GRAY)
    return drawn


def _blend_heat(rgb: Pixels, shown: list[Heard]) -> Pixels:
    cv2 = import_cv2()
    height, width = rgb.shape[:2]
    scale = min(1.0, CANVAS / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    layer = np.zeros((*small, 3), np.float32)
    total = np.zeros(small, np.float32)
    for source in shown:
        assert source.map is not None
        heat = np.clip((upsample_map(min_max(source.map), small) - FLOOR) / (1 - FLOOR), 0, 1)
        layer += heat[..., None] * np.asarray(color_of(source.index), np.float32)
        total += heat
    # where sources overlap they share the opacity of the hotter one
    share = STRENGTH * np.minimum(1, total) / np.maximum(total, 1e-6)
    color = (layer * share[..., None]).astype(np.uint8)
    keep = (255 * (1 - STRENGTH * np.minimum(1, total))).astype(np.uint8)
    color = cv2.resize(color, (width, height), interpolation=cv2.INTER_LINEAR)
    keep = cv2.merge([cv2.resize(keep, (width, height), interpolation=cv2.INTER_LINEAR)] * 3)
    drawn: Pixels = cv2.add(cv2.multiply(rgb, keep, scale=1 / 255), color)
    return drawn


def _draw_source(drawn: Pixels, source: Heard, line: int) -> None:
    cv2 = import_cv2()
    height, width = drawn.shape[:2]
    color = color_of(source.index)
    assert source.box is not None and source.peak is not None
    x1, x2 = (min(width - 1, round(v * width)) for v in source.box[::2])
    y1, y2 = (min(height - 1, round(v * height)) for v in source.box[1::2])
    cv2.rectangle(drawn, (x1, y1), (x2, y2), color, line)
    peak = (round(source.peak[0] * width), round(source.peak[1] * height))
    cv2.drawMarker(drawn, peak, WHITE, cv2.MARKER_CROSS, 6 * line, line)


def _anchor(drawn: Pixels, box: tuple[float, float, float, float]) -> tuple[int, int]:
    height, width = drawn.shape[:2]
    return round(box[0] * width), round(box[1] * height)


def percent(source: Heard) -> str:
    """Return how sure the decision is: 50 % at the class's threshold."""
    return f"{round(100 * source.certainty)}%"


def _name(source: Heard) -> str:
    return drawable(source.label.replace("_", " ")) or f"class {source.index + 1}"
