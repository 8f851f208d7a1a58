"""Pictures with 256 colours of their own each, for GIF."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.media import import_av


class Palette:
    """Finds every picture's palette and draws it with those colours, through FFmpeg's filters."""

    def __init__(self) -> None:
        self._graph: Any = None

    def take(self, rgb: npt.NDArray[np.uint8] | None, ticks: int, base: Fraction) -> list[Any]:
        """Hand over a picture [H, W, 3] uint8 shown at `ticks` of `base`; the frames that are ready.

        None: there are no more, and all frames come.
        """
        av = import_av()
        if rgb is None and self._graph is None:
            return []
        if rgb is None:
            self._graph.push(None)
        else:
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = ticks, base
            if self._graph is None:
                self._graph = self._build(frame, base)
            self._graph.push(frame)
        return self._pull(av)

    def _pull(self, av: Any) -> list[Any]:
        found = []
        while True:
            try:
                found.append(self._graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return found

    def _build(self, frame: Any, base: Fraction) -> Any:
        graph = import_av().filter.Graph()
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
        split = graph.add("split")
        find = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=bayer")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(find, 1, 0)
        find.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph
