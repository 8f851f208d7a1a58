"""Finds, for any text, fonts that have its characters: the system's, those of Python packages, and OpenCV's own."""

from __future__ import annotations

import importlib.util
import os
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

from avgn.runtime.errors import MissingExtraError

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# plain faces that read well in a small size come first, whatever the system calls them
PREFERRED = (
    "dejavusans",
    "notosans-regular",
    "liberationsans-regular",
    "arial",
    "segoeui",
    "helvetica",
    "sfns",
    "roboto",
)
LATER = (
    "bold",
    "italic",
    "oblique",
    "black",
    "light",
    "thin",
    "mono",
    "serif",
    "condensed",
    "narrow",
    "color",
    "symbol",
)
MOST_FONTS = 4000
# no font has this character: what is drawn for it is drawn for every other that is missing
NO_CHARACTER = "\U0010fffe"
# the one size at which fonts of coloured bitmaps exist
BITMAP_SIZE = 109
CHECK_SIZE = 24


def import_pillow() -> Any:
    """Pillow's ImageFont. Raises MissingExtraError when it is not installed."""
    try:
        from PIL import ImageFont
    except ImportError as error:
        raise MissingExtraError("PIL", "runtime", error) from None
    return ImageFont


def font_folders() -> list[Path]:
    """Return where this system keeps its fonts, and packages theirs."""
    home = Path.home()
    folders = [
        *(home / ".fonts", home / ".local/share/fonts", Path("/usr/local/share/fonts"), Path("/usr/share/fonts")),
        *(home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")),
        Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",
    ]
    # its DejaVu has Latin, Greek, Cyrillic, Arabic and Hebrew letters
    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        folders.append(Path(found.origin).parent / "mpl-data/fonts/ttf")
    return folders


@lru_cache(maxsize=1)
def font_files() -> tuple[Path, ...]:
    """Return every font file of this machine, the most readable first; AVGN_FONT names one that comes before all."""
    found: list[Path] = []
    for folder in font_folders():
        for base, folders, names in os.walk(folder):
            folders.sort()
            found += [Path(base) / name for name in sorted(names) if _is_font(name.lower())]
            if len(found) > MOST_FONTS:
                break
    found.sort(key=_rank)
    given = os.environ.get("AVGN_FONT")
    return (*([Path(given)] if given else []), *found)


def _is_font(name: str) -> bool:
    # the fonts of last resort draw boxes for every character there is
    return name.endswith(SUFFIXES) and "lastresort" not in name.replace(" ", "")


def _rank(path: Path) -> tuple[int, int]:
    name = path.stem.lower().replace(" ", "")
    first = PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)
    return first, sum(word in name for word in LATER)


@lru_cache(maxsize=64)
def open_font(path: Path | None, size: int) -> Any | None:
    """Return a font in pixels; None where the file is no font of this size. Without a path: the one inside Pillow
    (Latin)."""
    fonts = import_pillow()
    try:
        return fonts.load_default(size) if path is None else fonts.truetype(str(path), size)
    except (OSError, ValueError):
        return None


def is_bitmap(path: Path | None) -> bool:
    """Return whether a font holds coloured bitmaps of one size."""
    return path is not None and open_font(path, CHECK_SIZE) is None and open_font(path, BITMAP_SIZE) is not None


@lru_cache(maxsize=4096)
def font_of(char: str) -> Path | None | bool:
    """Return the file of the first font that has a character, None for the one inside Pillow, False where none has
    it."""
    files = font_files()
    for path in (*files[:1], *_recent, *files[1:], None):
        if has(path, char):
            if path is not None and path not in _recent:
                # the next character is mostly of the same script
                _recent.append(path)
            return path
    return False


_recent: list[Path] = []


@lru_cache(maxsize=8192)
def has(path: Path | None, char: str) -> bool:
    """Return whether a font draws a character, and not the box that stands for a missing one."""
    size = BITMAP_SIZE if is_bitmap(path) else CHECK_SIZE
    font = open_font(path, size)
    if font is None:
        return False
    try:
        drawn, missing = font.getmask(char), font.getmask(NO_CHARACTER)
    except (OSError, ValueError):
        return False
    return drawn.getbbox() is not None and (drawn.size != missing.size or bytes(drawn) != bytes(missing))


def runs(text: str) -> list[tuple[Path | None | bool, str]]:
    """Return the text cut where the font changes; joiners, accents and spaces go with what is before them."""
    found: list[tuple[Path | None | bool, str]] = []
    for char in text:
        joined = char.isspace() or unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf")
        if joined:
            font = found[-1][0] if found else font_of("x")
        elif found and found[-1][0] is not False and has(found[-1][0], char):  # type: ignore[arg-type]
            font = found[-1][0]
        else:
            font = font_of(char)
        if found and found[-1][0] == font:
            found[-1] = (font, found[-1][1] + char)
        else:
            found.append((font, char))
    return found
