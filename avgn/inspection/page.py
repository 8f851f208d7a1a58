"""Writes the HTML page of an inspection: self-contained, with everything from the manifest escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.inspection.cards import Card
from avgn.inspection.statistics import lines_of
from avgn.runtime.files import write_whole
from avgn.runtime.image import import_cv2
from avgn.runtime.sinks.drawing import color_of

JPEG_QUALITY = 88
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; background: #fafafa; color: #161616 }
pre { overflow-x: auto; background: #fff; padding: .8rem; border: 1px solid #ddd }
main { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; padding: .6rem; background: #fff; border: 1px solid #ddd; max-width: 100% }
figure img { height: 240px; max-width: 100%; display: inline-block }
figcaption { max-width: 620px; overflow-wrap: anywhere }
.fault, .suspicious { color: #b00000 }
i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; border: 1px solid #888 }
"""


def write_page(path: Path, summary: dict[str, Any], cards: Sequence[Card]) -> Path:
    """Write the page. Raises InputError if that fails."""
    return write_whole(path, render_page(summary, cards), "page")


def render_page(summary: dict[str, Any], cards: Sequence[Card]) -> str:
    """Make the page's HTML: what is suspicious, the statistics, the colours of the classes, and the cards."""
    title = f"{summary['items']} items of {summary['manifest']}"
    doubts = "".join(f'<p class="suspicious">{escape(text)}</p>\n' for text in summary["boxes"]["suspicious"])
    shown = {source.label for card in cards for source in card.item.sources}
    colors = "".join(
        f'<i style="background: rgb{color_of(index)}"></i>{escape(name)}'
        for index, name in enumerate(summary["classes"])
        if name in shown
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{doubts}"
        f"<pre>{escape(chr(10).join(lines_of(summary)))}</pre>\n<p>{colors}</p>\n<main>\n"
        + "".join(map(_figure, cards))
        + "</main></body></html>\n"
    )


def _figure(card: Card) -> str:
    images = "".join(
        f'<img alt="{escape(name)} of {escape(card.item.id)}" src="{_data_uri(pixels)}">'
        for name, pixels in (("frame", card.frame), ("sound", card.spectrogram))
        if pixels is not None
    )
    words = "<br>".join(map(escape, card.words))
    fault = f'<br><span class="fault">{escape(card.fault)}</span>' if card.fault else ""
    return f"<figure>{images}<figcaption>{words}{fault}</figcaption></figure>\n"


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    cv2 = import_cv2()
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
