"""Writes the contact sheet: cards in a grid, as one PNG.

Legend: H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avgn.inspection.cards import CARD_HEIGHT, SPECTROGRAM_WIDTH, Card
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.image import import_cv2, resize
from avgn.runtime.sinks.text import drawable, line_height, put, shorten

FRAME_WIDTH = 360
LINE_HEIGHT = 18
MAX_LINES = 4
GAP_PIXELS = 8
PAPER_GRAY = 250
TEXT_PIXELS = 12
NUM_COLUMNS = 3
RED = (190, 0, 0)
BLACK = (20, 20, 20)


def write_sheet(path: Path, cards: Sequence[Card]) -> Path:
    """Write the sheet. Raises InputError if that fails."""
    done, data = import_cv2().imencode(".png", draw_sheet(cards)[..., ::-1])
    if not done:
        raise InputError(f"sheet {path} can't be encoded as PNG: lower --count")
    return write_whole(path, data.tobytes(), "sheet")


def draw_sheet(cards: Sequence[Card]) -> NDArray[np.uint8]:
    """Draw the cards from left to right and downwards: RGB [H, W, 3]."""
    cells = [_draw_cell(card) for card in cards]
    columns = min(NUM_COLUMNS, len(cells))
    height, width = cells[0].shape[0] + GAP_PIXELS, cells[0].shape[1] + GAP_PIXELS
    sheet = np.full(
        (math.ceil(len(cells) / columns) * height + GAP_PIXELS, columns * width + GAP_PIXELS, 3), PAPER_GRAY, np.uint8
    )
    for at, cell in enumerate(cells):
        top, left = GAP_PIXELS + at // columns * height, GAP_PIXELS + at % columns * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def _draw_cell(card: Card) -> NDArray[np.uint8]:
    """Draw one card: a centred picture beside a spectrogram, with words below."""
    width = FRAME_WIDTH + GAP_PIXELS + SPECTROGRAM_WIDTH
    cell = np.full((CARD_HEIGHT + MAX_LINES * LINE_HEIGHT + GAP_PIXELS, width, 3), PAPER_GRAY, np.uint8)
    cell[:CARD_HEIGHT, :FRAME_WIDTH] = 225
    if card.frame is not None:
        frame = fit(card.frame, (CARD_HEIGHT, FRAME_WIDTH))
        top, left = (CARD_HEIGHT - frame.shape[0]) // 2, (FRAME_WIDTH - frame.shape[1]) // 2
        cell[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    if card.spectrogram is not None:
        cell[:CARD_HEIGHT, FRAME_WIDTH + GAP_PIXELS :] = card.spectrogram
    lines = [(text, BLACK) for text in card.words[:MAX_LINES]]
    if card.fault is not None:
        lines = [*lines[: MAX_LINES - 1], (card.fault, RED)]
    for number, (text, color) in enumerate(lines, start=1):
        top = CARD_HEIGHT + number * LINE_HEIGHT - line_height(TEXT_PIXELS) + 1
        put(cell, shorten(drawable(text), TEXT_PIXELS, width - 4), (2, top), TEXT_PIXELS, color)
    return cell


def fit(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink a picture that is larger than `size` (H, W), keeping its aspect ratio."""
    share = min(1.0, size[0] / frame.shape[0], size[1] / frame.shape[1])
    return resize(frame, (max(1, round(share * frame.shape[0])), max(1, round(share * frame.shape[1]))))
