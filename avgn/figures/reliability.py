"""Draws how far probabilities can be believed: the share that is right over what was claimed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from avgn.figures.page import STYLE, check_output, import_matplotlib, new_page, save

SIDE_INCHES = 3.2


def plot_reliability(reliability: Sequence[tuple[int, float, float]], path: str | os.PathLike[str]) -> None:
    """Write the reliability diagram of (count, mean probability, share that is right) rows as PNG, PDF or SVG.

    Rows without scores are left out; below them stands how many scores lie in each row, on a logarithmic scale.
    Raises InputError for a path that can't be written, MissingExtraError without matplotlib.
    """
    target = check_output(path)
    matplotlib = import_matplotlib()
    shown = [row for row in reliability if row[0]]
    with matplotlib.rc_context(STYLE):
        page = new_page(SIDE_INCHES, 1.4 * SIDE_INCHES)
        upper, lower = page.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        upper.plot((0, 1), (0, 1), color="0.7", linewidth=0.8)
        upper.plot([mean for _, mean, _ in shown], [share for _, _, share in shown], marker="o", markersize=3.5)
        upper.set_ylim(-0.02, 1.02)
        upper.set_ylabel("share that is right")
        width = 1 / len(reliability)
        lower.bar(
            [(at + 0.5) * width for at in range(len(reliability))], [count for count, _, _ in reliability], width * 0.9
        )
        lower.set_yscale("log")
        lower.set_xlim(0, 1)
        lower.set_xlabel("probability")
        lower.set_ylabel("scores")
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
        page.tight_layout()
        save(page, target)
