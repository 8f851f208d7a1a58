"""Splits share no parameter values and no backgrounds."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from avgn.scenes import CLASSES, SceneConfig, render_scene, render_single_object, render_single_waveform
from avgn.scenes.backgrounds import FAMILIES
from avgn.scenes.draw import BANDS, SPLITS, Draw
from avgn.scenes.motion import draw_paths


def test_bands_are_disjoint_with_gaps_and_interleaved() -> None:
    bands = sorted((low, high, split) for split in SPLITS for low, high in BANDS[split])
    for (_, high, split), (low, _, following) in zip(bands, bands[1:], strict=False):
        assert low - high > 0.009 and split != following
    assert bands[0][2] == bands[-1][2] == "train"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("cycles", [1, 3])
def test_draws_fill_the_bands_of_their_split_and_nothing_else(split: str, cycles: int) -> None:
    d = Draw(np.random.default_rng(0), split)
    units = np.array([d.unit(cycles) for _ in range(4000)]) * cycles % 1.0000001
    hits = [((units >= low - 1e-6) & (units <= high + 1e-6)).sum() for low, high in BANDS[split]]
    assert sum(hits) == len(units)
    widths = np.array([high - low for low, high in BANDS[split]])
    assert np.allclose(np.array(hits) / 4000, widths / widths.sum(), atol=0.04)


def test_every_parameter_of_whole_scenes_lies_in_the_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[tuple[str, float]]] = defaultdict(list)
    plain = Draw.uniform

    def recording(self: Draw, low: float, high: float, cycles: int = 1) -> float:
        value = plain(self, low, high, cycles)
        drawn[self.split].append((f"{low} {high} {cycles}", value))
        return value

    monkeypatch.setattr(Draw, "uniform", recording)
    for split in SPLITS:
        for index in range(8):
            render_scene(SceneConfig(split=split, sources=(2, 3), silent=(2, 2), seconds=0.5), 1, index)
    assert all(len(values) > 2000 for values in drawn.values())
    for split in SPLITS:
        for name, value in drawn[split]:
            low, high, cycles = (float(part) for part in name.split())
            unit = (value - low) / (high - low) * cycles if high > low else 0
            inside = any(a - 1e-6 <= unit - k <= b + 1e-6 for k in range(int(cycles)) for a, b in BANDS[split])
            assert inside or high == low, (split, name, value)


def test_a_sound_of_another_split_differs_in_pitch() -> None:
    def pitches(split: str) -> Any:
        found = []
        for seed in range(12):
            sound = render_single_waveform("buzzer", split, seed, 2.0)
            spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 17))
            bins = np.fft.rfftfreq(1 << 17, 1 / 22_050)
            candidates = np.geomspace(139, 562, 1200)
            # A square wave's fundamental is where odd harmonics add up most.
            score = np.zeros(len(candidates))
            for k in range(1, 8):
                score += (1 if k % 2 else -1) * np.interp(k * candidates, bins, spectrum)
            found.append(candidates[score.argmax()])
        return np.log2(np.array(found) / 140) / 2 * 2 % 1

    for split in SPLITS:
        units = pitches(split)
        near = np.array([any(a - 0.01 <= u <= b + 0.01 for a, b in BANDS[split]) for u in units])
        assert near.mean() >= 0.8


def test_backgrounds_of_the_splits_are_families_of_their_own() -> None:
    assert len(FAMILIES["test"]) >= 3
    names = [name for split in SPLITS for name in FAMILIES[split]]
    assert len(set(names)) == len(names)


def test_the_same_seed_gives_other_scenes_in_another_split() -> None:
    frames = [render_single_object(CLASSES[0], split, 0)[0] for split in SPLITS]
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[1], frames[2])


def test_paths_keep_two_objects_apart_most_of_the_time() -> None:
    d = Draw(np.random.default_rng(0), "train")
    mask = np.ones((100, 120), dtype=bool)
    shares = [draw_paths([mask, mask], 360, 640, 10, d)[1] for _ in range(5)]
    assert np.mean(shares) < 0.1
