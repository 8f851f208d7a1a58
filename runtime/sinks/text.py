"""Draws text in any script: pictures of it are made once and kept, so that frames of a video only copy them."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime.arrays import Pixels
from avgn.runtime.image import import_cv2
from avgn.runtime.sinks import fonts

log = logging.getLogger(__name__)

Color = tuple[int, int, int]

# of the size: the line's height, and where the letters stand in it
LINE = 1.4
BASE = 1.06
ELLIPSIS = "\u2026"

# FreeType's faces are not for several threads
_lock = threading.Lock()


def line_height(size: int) -> int:
    """Return the height in pixels of a line of text of `size` pixels."""
    return round(LINE * size)


@lru_cache(maxsize=1024)
def drawable(text: str) -> str:
    """Return the text without the characters that no font here has; said once for each text that loses some."""
    with _lock:
        kept = "".join(part for font, part in fonts.runs(text) if font is not False or _opencv_has(part))
    kept = " ".join(kept.split())
    lost = "".join(dict.fromkeys(char for char in text if char not in kept and not char.isspace()))
    if lost:
        log.warning(
            "no font on this machine has %s of %r: install one (such as fonts-noto-core, -cjk or -color-emoji), or set "
            "AVGN_FONT to its file",
            lost,
            text,
        )
    return kept


@lru_cache(maxsize=512)
def render(text: str, size: int, ink: Color) -> Pixels:
    """Return the text as RGBA [line_height(size), W, 4]."""
    with _lock:
        parts = [_render_run(font, part, size, ink) for font, part in fonts.runs(text)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((line_height(size), 0, 4), np.uint8)


def text_width(text: str, size: int) -> int:
    """Return the width in pixels of a text."""
    return int(render(text, size, (0, 0, 0)).shape[1])


@lru_cache(maxsize=512)
def shorten(text: str, size: int, width: int) -> str:
    """Return the longest beginning of a text that is at most `width` pixels wide with an ellipsis behind it; may be
    empty."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + ELLIPSIS, size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS if low else ""


def put(rgb: Pixels, text: str, at: tuple[int, int], size: int, ink: Color) -> None:
    """Draw a line of text whose upper left corner is `at` (x, y); what leaves the picture [H, W, 3] is cut off."""
    drawn = render(text, size, ink)
    x, y = at
    left, top = max(0, x), max(0, y)
    right, bottom = min(rgb.shape[1], x + drawn.shape[1]), min(rgb.shape[0], y + drawn.shape[0])
    if left >= right or top >= bottom:
        return
    piece = drawn[top - y : bottom - y, left - x : right - x]
    cover = piece[..., 3:].astype(np.uint16)
    area = rgb[top:bottom, left:right]
    area[:] = ((area * (255 - cover) + piece[..., :3] * cover + 127) // 255).astype(np.uint8)


def _render_run(font: Path | None | bool, text: str, size: int, ink: Color) -> Pixels:
    from PIL import Image, ImageDraw

    if font is False:
        return _opencv_run(text, size, ink)
    colored = fonts.is_bitmap(font)  # type: ignore[arg-type]
    drawn = fonts.BITMAP_SIZE if colored else size
    face = fonts.open_font(font, drawn)  # type: ignore[arg-type]
    assert face is not None
    height, width = line_height(drawn), max(1, round(face.getlength(text)))
    image = Image.new("RGBA", (width, height), (*ink, 0))
    pen = ImageDraw.Draw(image)
    pen.text((0, round(BASE * drawn)), text, fill=(*ink, 255), font=face, anchor="ls", embedded_color=colored)
    if colored:
        wanted = line_height(size)
        image = image.resize((max(1, round(width * wanted / height)), wanted), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def _opencv_face() -> Any | None:
    """Return the font inside OpenCV 5, which has Chinese, Japanese, Cyrillic and Arabic letters; None before."""
    cv2 = import_cv2()
    return cv2.FontFace("uni") if hasattr(cv2, "FontFace") else None


@lru_cache(maxsize=1024)
def _opencv_has(text: str) -> bool:
    if _opencv_face() is None:
        return False
    missing = _opencv_run("?", fonts.CHECK_SIZE, (0, 0, 0))
    return not any(
        np.array_equal(_opencv_run(char, fonts.CHECK_SIZE, (0, 0, 0)), missing)
        for char in text
        if not char.isspace() and char != "?"
    )


def _opencv_run(text: str, size: int, ink: Color) -> Pixels:
    cv2, face = import_cv2(), _opencv_face()
    height = line_height(size)
    if face is None:
        return np.zeros((height, 0, 4), np.uint8)
    base = (0, round(BASE * size))
    width = max(1, cv2.getTextSize((size * len(text) * 2, height), text, base, face, size)[2])
    cover = np.zeros((height, width, 3), np.uint8)
    cv2.putText(cover, text, base, (255, 255, 255), face, size)
    drawn = np.empty((height, width, 4), np.uint8)
    drawn[..., :3] = ink
    drawn[..., 3] = cover[..., 0]
    return drawn
