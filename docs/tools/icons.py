"""Draws the icons of the installed page, in pixels, from runtime/web/page/icon.svg.

python -m docs.tools.icons

A browser draws the picture in each size; a maskable one has no corners of its own and a margin that masks may cut.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tests.web import browser

ROOT = Path(__file__).resolve().parents[2]
ICON = ROOT / "runtime" / "web" / "page" / "icon.svg"
FOLDER = ROOT / "runtime" / "web" / "client" / "site"
# file, pixels, whether it is maskable
ICONS = (("icon-192.png", 192, False), ("icon-512.png", 512, False), ("icon-maskable.png", 512, True))
# of the side of a maskable icon, what no mask cuts
SAFE = 0.8
COLORS = 32


def main() -> None:
    drawn = ICON.read_text(encoding="utf-8")
    with browser.chromium() as page:
        for name, pixels, maskable in ICONS:
            draw(page, masked(drawn) if maskable else drawn, pixels, FOLDER / name)


def masked(drawn: str) -> str:
    """Return the picture without round corners and with a margin of its own ground."""
    margin = 32 * (1 - SAFE) / 2
    whole = re.sub(r' rx="\d+"', "", drawn, count=1)
    head, ground, rest = re.split(r"(<rect[^>]*/>)", whole, maxsplit=1)
    shapes = rest.replace("</svg>", "")
    return f'{head}{ground}<g transform="translate({margin} {margin}) scale({SAFE})">{shapes}</g></svg>'


def draw(page: Any, drawn: str, pixels: int, file: Path) -> None:
    page.set_viewport_size({"width": pixels, "height": pixels})
    page.set_content(f"<style>html, body {{ margin: 0 }} svg {{ display: block; width: {pixels}px }}</style>{drawn}")
    drawing = Image.open(BytesIO(page.screenshot(omit_background=True)))
    # two colours and the steps between them
    drawing.quantize(COLORS, method=Image.Quantize.FASTOCTREE).save(file, optimize=True)


if __name__ == "__main__":
    main()
