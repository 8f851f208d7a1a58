"""The contact sheet: overlay frames, evenly spread over a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avgn.runtime import Result
from avgn.runtime.arrays import Pixels
from avgn.runtime.outputs import write_whole
from avgn.runtime.sinks.labels import GRAY, Labels

COLUMNS = 3
ROWS = 4


class Sheet:
    """Collects overlay frames for a contact sheet; a sink."""

    def __init__(self, seconds: float) -> None:
        self.step = seconds / (COLUMNS * ROWS)
        self.tiles: list[Pixels] = []

    def __call__(self, result: Result, rgb: Pixels) -> None:
        if result.time >= (len(self.tiles) + 0.5) * self.step and len(self.tiles) < COLUMNS * ROWS:
            tile = np.ascontiguousarray(result.plot(rgb))
            labels = Labels(tile, 8)
            labels.put(f"{result.time:.1f} s", "", GRAY, (0, tile.shape[0]))
            self.tiles.append(tile)

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG."""
        import cv2

        blank = np.zeros_like(self.tiles[0])
        tiles = self.tiles + [blank] * (COLUMNS * ROWS - len(self.tiles))
        rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
        done, data = cv2.imencode(".png", np.vstack(rows)[:, :, ::-1])
        assert done
        write_whole(path, data.tobytes(), "sheet")
