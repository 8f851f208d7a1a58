"""Scenes of the demo's material: the same each time, within the picture, some of them silent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avgn.export.world_scenes import SECONDS, SIDE, write_scenes
from avgn.runtime.reading import read_wav
from avgn.world.classes import world_classes


def test_scenes_are_the_same_each_time_and_hold_what_they_say(tmp_path: Path) -> None:
    first, again = (write_scenes(tmp_path / name, 12) for name in ("first", "again"))
    other = write_scenes(tmp_path / "other", 2, seed=1)
    assert first.classes == tuple(world_classes())
    for n, (one, two) in enumerate(zip(first.items, again.items, strict=True)):
        assert one.frame is not None and two.frame is not None and one.audio is not None and two.audio is not None
        assert one.frame.read_bytes() == two.frame.read_bytes() and one.audio.read_bytes() == two.audio.read_bytes()
        assert one.sources == two.sources and one.sources
        picture = cv2.imread(str(one.frame))
        assert picture is not None and picture.shape == (SIDE, SIDE, 3)
        samples, rate = read_wav(one.audio)
        assert len(samples) == round(SECONDS * rate)
        loud = float(np.sqrt(np.mean(samples**2)))
        assert loud > 1e-4 and (loud > 5e-3 or not any(source.sounding for source in one.sources))
        for source in one.sources:
            ((x1, y1, x2, y2),) = source.boxes
            assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
            assert not (source.sounding and source.label == "cat")
        if n < 2:
            differing = other.items[n].frame
            assert differing is not None and differing.read_bytes() != one.frame.read_bytes()
    sounding = [sum(source.sounding for source in item.sources) for item in first.items]
    assert min(sounding) == 0 and max(sounding) >= 1
