"""Results drawn on pictures: heat maps, boxes, labels, and what sounds off-screen.

Heat is coloured on a small canvas and then resized: no float work at full resolution.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from avgn.runtime.decision import Heard
from avgn.runtime.image import import_cv2, upsample_map
from avgn.runtime.regions import min_max
from avgn.runtime.result import Result

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

CANVAS = 96
STRENGTH = 0.65
FLOOR = 0.3
GOLDEN_TURN = 0.61803398875
WHITE = (255, 255, 255)
GRAY = (70, 70, 70)
FONT = 0


@lru_cache(maxsize=1024)
def color_of(index: int) -> Color:
    """The colour of class `index`: neighbours in the list are far apart on the wheel."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * GOLDEN_TURN) % 1.0, 0.85, 1.0)
    return (round(255 * red), round(255 * green), round(255 * blue))


def draw_result(rgb: Pixels, result: Result) -> Pixels:
    """A copy of the frame [H, W, 3] uint8 with the result drawn on it."""
    shown = [source for source in result.sources if source.on_screen]
    picture = _blend_heat(rgb, shown) if shown else rgb.copy()
    height, width = picture.shape[:2]
    line = max(1, round(height / 240))
    taken: list[tuple[int, int, int, int]] = []
    for source in shown:
        _draw_source(picture, source, line, taken)
    notes = [(f"off-screen: {_caption(source)}", source.index) for source in result.sources if not source.on_screen]
    if result.state == "unknown":
        notes.append(("unknown sound", -1))
    top = 4 * line
    for text, index in notes:
        text_width, text_height = _text_size(text, height)
        box = (width - text_width - 4 * line, top, width - 4 * line, top + text_height)
        _draw_text(picture, text, box, GRAY if index < 0 else color_of(index))
        top += text_height + 2 * line
    return picture


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
    picture: Pixels = cv2.add(cv2.multiply(rgb, keep, scale=1 / 255), color)
    return picture


def _draw_source(picture: Pixels, source: Heard, line: int, taken: list[tuple[int, int, int, int]]) -> None:
    cv2 = import_cv2()
    height, width = picture.shape[:2]
    color = color_of(source.index)
    assert source.box is not None and source.peak is not None
    x1, x2 = (min(width - 1, round(v * width)) for v in source.box[::2])
    y1, y2 = (min(height - 1, round(v * height)) for v in source.box[1::2])
    cv2.rectangle(picture, (x1, y1), (x2, y2), color, line)
    peak = (round(source.peak[0] * width), round(source.peak[1] * height))
    cv2.drawMarker(picture, peak, WHITE, cv2.MARKER_CROSS, 6 * line, line)
    text = _caption(source)
    text_width, text_height = _text_size(text, height)
    left = max(0, min(x1, width - text_width))
    top = y1 - text_height if y1 >= text_height else min(y1, height - text_height)
    while any(abs(left - t[0]) < t[2] - t[0] and abs(top - t[1]) < text_height for t in taken):
        top += text_height
    taken.append((left, top, left + text_width, top + text_height))
    _draw_text(picture, text, taken[-1], color)


def _caption(source: Heard) -> str:
    return f"{source.label.replace('_', ' ')} {round(100 * source.audio_prob)}%"


def _font(height: int) -> tuple[float, int, int]:
    scale = max(0.4, height / 800)
    return scale, max(1, round(scale * 1.2)), max(3, round(8 * scale))


def _text_size(text: str, height: int) -> tuple[int, int]:
    scale, thickness, margin = _font(height)
    (width, text_height), below = import_cv2().getTextSize(text, FONT, scale, thickness)
    return int(width) + 2 * margin, int(text_height) + int(below) + margin


def _draw_text(picture: Pixels, text: str, box: tuple[int, int, int, int], color: Color) -> None:
    cv2 = import_cv2()
    scale, thickness, margin = _font(picture.shape[0])
    _, below = cv2.getTextSize(text, FONT, scale, thickness)
    cv2.rectangle(picture, box[:2], box[2:], color, -1)
    ink = (0, 0, 0) if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 120 else WHITE
    at = (box[0] + margin, box[3] - int(below) - margin // 2 + 1)
    cv2.putText(picture, text, at, FONT, scale, ink, thickness, cv2.LINE_AA)
