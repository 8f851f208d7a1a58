"""Draws the truth on the frames of items: boxes and masks in a colour per class.

Legend: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avgn.evaluation.canvas import read_mask
from avgn.runtime.arrays import Pixels
from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2, resize
from avgn.runtime.manifest import Box, Item, Source
from avgn.runtime.media import open_media
from avgn.runtime.reading import read_still
from avgn.runtime.sinks.drawing import color_of
from avgn.runtime.sinks.text import drawable, line_height, put, shorten, text_width

Color = tuple[int, int, int]

LINE_PIXELS = 2
TINT_OPACITY = 0.35
TEXT_PIXELS = 11


def draw_item(item: Item, classes: Sequence[str], height: int) -> tuple[Pixels, float]:
    """Return (RGB [height, W, 3], time): the item's pictures side by side, or its video's telling frame and its time.

    Sources that sound have thick outlines, silent ones thin ones. Raises InputError for files that can't be read.
    """
    if item.video_file is not None and not item.frames:
        number = telling_frame(item)
        rgb, number, time = read_video_frame(item.video_file, number)
        drawn = scale(rgb, height)
        _draw_sources(drawn, item.sources, classes, number)
        return drawn, time
    parts = []
    for part, path in enumerate(item.frames):
        drawn = scale(read_rgb(path), height)
        here = [source for source in item.sources if source.part is None or source.part == part]
        _draw_sources(drawn, here, classes, None)
        parts.append(drawn)
    if not parts:
        raise InputError(f"item {item.id!r} has no picture: give it a frame, parts or a video_file")
    return np.ascontiguousarray(np.concatenate(parts, axis=1)), 0.0


def read_rgb(path: Path) -> Pixels:
    """Read an image file as RGB [H, W, 3]. Raises InputError that names it if that fails."""
    image = read_still("frame", path)
    return np.ascontiguousarray(image[..., ::-1])


def telling_frame(item: Item) -> int:
    """Return the number of the frame in which most sources are visible; of several such frames, the middle one."""
    tracks = [source.track for source in item.sources if source.track]
    if not tracks:
        return 0
    seen = np.zeros(max(map(len, tracks)), dtype=int)
    for track in tracks:
        seen[: len(track)] += [box is not None for box in track]
    best = np.flatnonzero(seen == seen.max())
    return int(best[len(best) // 2])


def read_video_frame(path: Path, number: int) -> tuple[Pixels, int, float]:
    """Read (RGB [H, W, 3], number, seconds) of a frame by its number, or of the last one if the video is shorter."""
    found: tuple[Pixels, int, float] | None = None
    for at, frame in enumerate(open_media(path).video()):
        found = (frame.rgb, at, frame.time)
        if at == number:
            break
    if found is None:
        raise InputError(f"{path} holds no picture that can be decoded: it is zero-length or damaged")
    return found


def scale(rgb: Pixels, height: int) -> Pixels:
    """Scale a picture to another height, keeping its aspect ratio."""
    return resize(rgb, (height, max(1, round(rgb.shape[1] * height / rgb.shape[0]))))


def _draw_sources(drawn: Pixels, sources: Sequence[Source], classes: Sequence[str], frame: int | None) -> None:
    """Draw all sources in place; `frame` is the number of a video's frame."""
    for source in sources:
        if source.mask is not None:
            _draw_mask(drawn, read_mask(source.mask, drawn.shape[:2]), color_of(classes.index(source.label)))
    labels: list[tuple[str, int, int, Color]] = []
    for source in sources:
        color = color_of(classes.index(source.label))
        corners = [to_pixels(box, drawn.shape[:2]) for box in _boxes_here(source, frame)]
        for x1, y1, x2, y2 in corners:
            thickness = LINE_PIXELS if source.sounding else 1
            import_cv2().rectangle(drawn, (x1, y1), (x2, y2), color, thickness)
        if corners:
            name = source.label if source.sounding else f"{source.label} (silent)"
            labels.append((name, corners[0][0], corners[0][1], color))
    taken: list[tuple[int, int, int]] = []
    for text, x, y, color in labels:
        _draw_label(drawn, text, x, y, color, taken)


def to_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last column and row of a box in a picture of `size` (H, W)."""
    x1, y1, x2, y2 = box
    left, top = min(round(x1 * size[1]), size[1] - 1), min(round(y1 * size[0]), size[0] - 1)
    return left, top, max(left, round(x2 * size[1]) - 1), max(top, round(y2 * size[0]) - 1)


def _boxes_here(source: Source, frame: int | None) -> list[Box]:
    if frame is not None and source.track is not None:
        box = source.track[frame] if frame < len(source.track) else None
        return [] if box is None else [box]
    return list(source.boxes)


def _draw_mask(drawn: Pixels, mask: NDArray[np.bool_], color: Color) -> None:
    cv2 = import_cv2()
    drawn[mask] = ((1 - TINT_OPACITY) * drawn[mask] + TINT_OPACITY * np.array(color)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, color, 1)


def _draw_label(drawn: Pixels, text: str, x: int, y: int, color: Color, taken: list[tuple[int, int, int]]) -> None:
    """Draw a name above its box if there is room, and never over another name.

    drawn: RGB [H, W, 3], changed in place. x, y: the box's top-left corner in pixels. taken: (left, top, width) of
    the names drawn so far, to which this one is added.
    """
    text = shorten(drawable(text), TEXT_PIXELS, drawn.shape[1] - 4)
    width, height = text_width(text, TEXT_PIXELS) + 4, line_height(TEXT_PIXELS)
    left = max(0, min(x, drawn.shape[1] - width))
    top = y - height if y >= height else y
    while any(abs(left - other[0]) < max(width, other[2]) and abs(top - other[1]) < height for other in taken):
        top += height
    taken.append((left, top, width))
    import_cv2().rectangle(drawn, (left, top), (left + width, top + height - 1), color, -1)
    put(drawn, text, (left + 2, top), TEXT_PIXELS, ink_on(color))


def ink_on(color: Color) -> Color:
    """Choose black or white, whichever can be read on a colour."""
    return (0, 0, 0) if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 120 else (255, 255, 255)
