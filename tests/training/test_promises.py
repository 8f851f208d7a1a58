"""What augmentation and sampling promise, where a small mistake would change training and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.data.augment import NONE, Augmentation, cut_waveform
from avgn.data.sampling import SeededBatches, class_balance, scene_counts
from avgn.runtime.manifest import Item, Source


def only(**values: float) -> Augmentation:
    return Augmentation(**(vars(NONE) | values))


def item(*labels: str) -> Item:
    sources = tuple(Source(label=label, sounding=True, on_screen=True) for label in labels)
    return Item(id="-".join(labels), sources=sources, split="train", dataset="", video="v")


def test_gain_is_an_amplitude_in_decibels() -> None:
    waveform = np.full(1000, 0.01, np.float32)
    rng = np.random.default_rng(0)
    gains = [20 * np.log10(cut_waveform(waveform, 1000, only(gain_db=6.0), rng)[0] / 0.01) for _ in range(2000)]
    # evenly spread over +-6 dB of level: power would halve it
    assert -6.001 <= min(gains) < -5.9 and 5.9 < max(gains) <= 6.001
    assert np.mean(gains) == pytest.approx(0, abs=0.3) and np.std(gains) == pytest.approx(12 / 12**0.5, abs=0.2)


@pytest.mark.parametrize("length", [2, 3, 1000])
def test_padding_silences_less_than_half_at_either_edge(length: int) -> None:
    rng = np.random.default_rng(0)
    waveform = np.ones(length, np.float32)
    counts = {"start": [0], "end": [0]}
    for _ in range(500):
        window = cut_waveform(waveform, length, only(padding=1.0), rng)
        silent = np.flatnonzero(window == 0)
        # with nothing to silence at the end, nothing is silenced
        assert len(silent) < max(1, length // 2) and window.max() == 1
        if len(silent):
            edge = "start" if silent[0] == 0 else "end"
            assert np.array_equal(silent, np.arange(len(silent)) + (0 if edge == "start" else length - len(silent)))
            counts[edge].append(len(silent))
    if length == 1000:
        assert all(max(found) > 450 and 150 < len(found) < 350 for found in counts.values())
    assert (cut_waveform(waveform, length, only(padding=0.0), rng) == 1).all()


def test_balance_makes_classes_come_equally_often() -> None:
    items = [*(item("common") for _ in range(90)), *(item("rare") for _ in range(9)), item("single")]
    weights = class_balance(items)
    share = weights / weights.sum()
    assert [share[:90].sum(), share[90:99].sum(), share[99]] == pytest.approx([1 / 3] * 3)
    # of an item with several classes, the mean counts; one with none comes as often as one of the average class
    several = class_balance([item("a", "b"), item("a"), item("a"), item("a"), item()])
    assert several == pytest.approx([(1 / 4 + 1) / 2, 1 / 4, 1 / 4, 1 / 4, 2 / 5])
    batches = SeededBatches(100, 10, seed=1, weights=weights)
    epochs = [key.item for epoch in range(200) for batch in _from(batches, epoch * 10) for key in batch]
    drawn = np.bincount(epochs, minlength=100) / len(epochs)
    assert [drawn[:90].sum(), drawn[90:99].sum(), drawn[99]] == pytest.approx([1 / 3] * 3, abs=0.02)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("done", [0, 1, 7, 12, 25])
def test_pictures_of_a_batch_are_the_same_after_a_resume(done: int, world: int) -> None:
    def run(position: int, rank: int) -> list[list[tuple[int, int, int]]]:
        batches = SeededBatches(120, 10 // world, seed=3, rank=rank, world=world, scenes=(1, 4))
        return [[tuple(key) for key in batch] for batch in _from(batches, position)]  # type: ignore[misc]

    for rank in range(world):
        whole = run(done // 12 * 12, rank)
        assert run(done, rank) == whole[done % 12 :]
        assert [batch[0][2] for batch in whole] == list(scene_counts(3, done // 12, 12, (1, 4)))
        # one number for a joint batch, not the same one throughout
        assert all(len({key[2] for key in batch}) == 1 for batch in whole)
        assert len({batch[0][2] for batch in whole}) > 1


def _from(batches: SeededBatches, position: int) -> SeededBatches:
    batches.position = lambda: position
    return batches
