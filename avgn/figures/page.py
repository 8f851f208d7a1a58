"""Shares between the figures a page to draw on, its file, and the colours of the classes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from avgn.runtime import outputs
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.sinks.drawing import color_of

SUFFIXES = (".png", ".pdf", ".svg")
DPI = 200
# the overlay's colours shine on pictures; on white paper they have to be darker
DARKER = 0.82
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "avgn",
}


def check_output(path: str | os.PathLike[str]) -> Path:
    """Check the path of a figure's file. Raises InputError for an unknown suffix and for a path that can't be
    written."""
    path = Path(path)
    _format(path)
    outputs.check_output(path, kind="figure")
    return path


def _format(path: Path) -> str:
    """Return the format that the suffix names; devices and standard output have no suffix and get PNG."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and not (suffix == "" and outputs.find_place(path, kind="figure").is_direct):
        raise InputError(f"figure {path} must end with one of {', '.join(SUFFIXES)}: its suffix chooses the format")
    return suffix[1:] or "png"


def import_matplotlib() -> Any:
    """Import matplotlib for drawing without a screen. Raises MissingExtraError if it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "figures") from None
    matplotlib.use("agg")
    return matplotlib


def new_page(width: float, height: float) -> Any:
    """Make an empty figure of width x height inches."""
    import_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI)


def save(page: Any, path: Path) -> None:
    """Write a figure in the format that the suffix names; the same figure gives the same bytes."""
    kind = _format(path)
    data = io.BytesIO()
    stamp = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    page.savefig(data, format=kind, bbox_inches="tight", pad_inches=0.04, metadata=stamp)
    outputs.write_whole(path, data.getvalue(), "figure")


def class_color(index: int) -> tuple[float, float, float]:
    """Return the overlay's colour of class `index`, darkened for white paper: 0..1."""
    red, green, blue = (DARKER * value / 255 for value in color_of(index))
    return (red, green, blue)


def class_name(label: str) -> str:
    return label.replace("_", " ")
