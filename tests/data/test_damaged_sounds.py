"""Training hears of a damaged sound what can be decoded, as the runtime does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from avgn.config import preset
from avgn.data.dataset import AudioVisualDataset
from avgn.runtime.manifest import read_manifest
from tests.runtime.coded import coded, damage
from tests.runtime.ffmpeg import needs_ffmpeg
from tests.squares import CLASSES, write_squares


@needs_ffmpeg
def test_training_hears_a_damaged_sound(tmp_path: Path) -> None:
    manifest = read_manifest(write_squares(tmp_path / "set", 2, seconds=0.4))
    item = manifest.items[0]
    items = [replace(item, audio=damage(coded(tmp_path / "a.m4a"), 0))]
    config = preset("avgn-tiny", classes=CLASSES, image_size=(64, 64), window_seconds=0.4)
    waveform = AudioVisualDataset(replace(manifest, items=tuple(items)), config, train=True).read(0)[1]
    assert np.abs(waveform).max() > 0.1
