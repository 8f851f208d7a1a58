"""Samples, mixtures, augmentation, sampling and the cache of decoded sounds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.config import Config, preset
from avgn.data.augment import NONE, Augmentation, augment_image
from avgn.data.batch import collate
from avgn.data.dataset import AudioVisualDataset
from avgn.data.loading import build_loader
from avgn.data.mixing import TARGET_RMS, Mixing, to_level
from avgn.data.sampling import Key, SeededBatches, class_balance
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, Source, read_manifest
from avgn.training import TrainConfig
from tests.squares import CLASSES, write_squares

STILL: dict[str, Any] = {"train": True, "augmentation": NONE}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_squares(tmp_path_factory.mktemp("data") / "set", 24, seconds=0.4))


@pytest.fixture(scope="module")
def config() -> Config:
    return preset("avgn-tiny", classes=CLASSES, image_size=(64, 64), window_seconds=0.4)


def test_a_mixture_is_the_pictures_side_by_side_and_the_plain_sum_of_the_sounds(
    manifest: Manifest, config: Config
) -> None:
    data = AudioVisualDataset(manifest, config, **STILL)
    alone = [data[Key(0, n)] for n in range(len(manifest.items))]
    mixed = data[Key(0, 3, 3)]
    assert mixed.image.shape == (64, 192, 3)
    found = []
    for place in range(3):
        part = mixed.image[:, 64 * place : 64 * (place + 1)]
        found.append(next(n for n, sample in enumerate(alone) if (sample.image == part).all()))
    assert 3 in found
    expected = np.sum([alone[n].waveform for n in found], axis=0)
    np.testing.assert_allclose(mixed.waveform, expected, atol=1e-6)
    assert set(mixed.sounding) == {k for n in found for k in alone[n].sounding}
    assert set(mixed.visible) == {k for n in found for k in alone[n].visible}
    assert sorted(mixed.order) == sorted(set(mixed.sounding) & set(mixed.visible))


def test_sums_are_not_clipped(manifest: Manifest, config: Config) -> None:
    loud = AudioVisualDataset(
        manifest, config, train=True, augmentation=replace(NONE, gain_db=20.0), mixing=Mixing(mix_level="rms")
    )
    assert max(float(np.abs(loud[Key(0, n, 4)].waveform).max()) for n in range(12)) > 1.5


def test_rms_brings_sounds_to_one_loudness_and_leaves_silence_alone() -> None:
    rng = np.random.default_rng(0)
    for gain in (1e-3, 0.5):
        sound = to_level((gain * rng.standard_normal(4000)).astype(np.float32), "rms")
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(TARGET_RMS, rel=1e-5)
    silence = np.zeros(100, dtype=np.float32)
    assert (to_level(silence, "rms") == silence).all() and (to_level(silence, "plain") == silence).all()


def test_silent_pictures_are_seen_and_off_screen_sounds_heard(manifest: Manifest, config: Config) -> None:
    mute = AudioVisualDataset(manifest, config, **STILL, mixing=Mixing(mixture=(2, 2), silent=1.0))
    plain = AudioVisualDataset(manifest, config, **STILL)
    sample, base = mute[Key(0, 5, 2)], plain[Key(0, 5)]
    assert set(sample.sounding) == set(base.sounding) and set(sample.visible) >= set(base.visible)
    np.testing.assert_array_equal(sample.waveform, base.waveform)
    aside = AudioVisualDataset(manifest, config, **STILL, mixing=Mixing(off_screen=1.0))
    sample = aside[Key(0, 5)]
    assert set(sample.visible) == set(base.visible) and (sample.image == base.image).all()
    assert np.abs(sample.waveform - base.waveform).max() > 0.01


def test_mixtures_depend_on_seed_epoch_and_item_alone(manifest: Manifest, config: Config) -> None:
    mixing = Mixing(mixture=(1, 3), silent=0.3, off_screen=0.5)
    one = AudioVisualDataset(manifest, config, train=True, seed=4, mixing=mixing)
    two = AudioVisualDataset(manifest, config, train=True, seed=4, mixing=mixing, cache=True)
    for key in (Key(0, 1, 2), Key(7, 1, 2), Key(7, 2, 3)):
        first, second = one[key], two[key]
        assert (first.image == second.image).all() and first.order == second.order
        assert np.abs(first.waveform - second.waveform).max() < 1e-3
    assert (one[Key(0, 1, 2)].image != one[Key(1, 1, 2)].image).any()


def test_a_joint_batch_mixes_the_same_number_of_pictures_in_every_process() -> None:
    whole = list(SeededBatches(60, 6, seed=3, scenes=(1, 3)))
    counts = [{key.scenes for key in batch} for batch in whole]
    assert all(len(count) == 1 for count in counts) and {1, 2, 3} == set().union(*counts)
    halves = [list(SeededBatches(60, 3, seed=3, rank=rank, world=2, scenes=(1, 3))) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert list(SeededBatches(60, 6, seed=3, position=lambda: 13, scenes=(1, 3)))[0] != whole[3]


def test_balanced_sampling_makes_classes_come_equally_often() -> None:
    def item(n: int, *labels: str) -> Item:
        sources = tuple(Source(label=label, sounding=True, on_screen=True) for label in labels)
        return Item(id=str(n), sources=sources, split="train", dataset="", video=str(n))

    items = [item(n, "common" if n < 270 else "rare") for n in range(300)]
    weights = class_balance(items)
    batches = SeededBatches(300, 30, seed=0, weights=weights)
    drawn = [items[key.item].sources[0].label for batch in batches for key in batch]
    assert 0.4 < drawn.count("rare") / len(drawn) < 0.6
    assert class_balance([item(0), item(1, "a", "b"), item(2, "a")])[0] > 0


def test_decoded_sounds_are_kept_and_made_again_when_the_file_changes(tmp_path: Path, config: Config) -> None:
    manifest = read_manifest(write_squares(tmp_path / "set", 3, seconds=0.4))
    folder = tmp_path / "cache"
    plain = AudioVisualDataset(manifest, config, train=False)
    first = AudioVisualDataset(manifest, config, train=False, audio_cache=folder)
    expected = plain[Key(0, 1)].waveform
    for _ in range(2):
        np.testing.assert_allclose(first[Key(0, 1)].waveform, expected, atol=1 / 32768)
    kept = list(folder.rglob("*.npy"))
    assert len(kept) == 1 and not list(folder.rglob("*.partial"))
    kept[0].write_bytes(b"torn")
    np.testing.assert_allclose(first[Key(0, 1)].waveform, expected, atol=1 / 32768)
    sound = manifest.items[1].audio
    assert sound is not None
    other = manifest.items[2].audio
    assert other is not None
    sound.write_bytes(other.read_bytes())
    os.utime(sound, ns=(1, 1))
    np.testing.assert_allclose(first[Key(0, 1)].waveform, plain[Key(0, 2)].waveform, atol=1 / 32768)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path, manifest: Manifest, config: Config) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written .*choose another one"):
        AudioVisualDataset(manifest, config, train=True, audio_cache=tmp_path / "file")


def test_nothing_changes_a_picture_without_augmentation(manifest: Manifest, config: Config) -> None:
    train = AudioVisualDataset(manifest, config, **STILL)
    plain = AudioVisualDataset(manifest, config, train=False)
    assert (train[Key(5, 2)].image == plain[Key(0, 2)].image).all()


def test_colours_change_within_their_share() -> None:
    rng = np.random.default_rng(0)
    image = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    how = replace(NONE, color=0.4)
    seen = np.stack([augment_image(image, (8, 8), how, rng)[0, 0] for _ in range(200)]).astype(int)
    assert seen.std(axis=0).min() > 3
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    for channel, value in enumerate((200, 100, 50)):
        ends = [g * (s * value + (1 - s) * luma) for g in (0.8, 1.2) for s in (0.6, 1.4)]
        assert seen[:, channel].min() >= min(ends) - 1 and seen[:, channel].max() <= max(ends) + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_workers_gives_the_same_batches(workers: int, manifest: Manifest, config: Config) -> None:
    data = AudioVisualDataset(manifest, config, train=True, mixing=Mixing(mixture=(1, 2)))
    batches = list(SeededBatches(len(data), 8, seed=1, scenes=(1, 2)))
    for keys, batch in zip(batches, build_loader(data, batches, workers), strict=True):
        expected = collate([data[key] for key in keys], len(CLASSES))
        assert (batch.image == expected.image).all() and (batch.waveform == expected.waveform).all()
        assert (batch.labels.order == expected.labels.order).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixture": (2, 1)}, "mixture must be"),
        ({"mixture": (0, 1)}, "mixture must be"),
        ({"mix_level": "loud"}, "mix_level must be one of plain, rms"),
        ({"silent": 1.5}, "silent must lie in 0..1"),
        ({"off_screen": -0.1}, "off_screen must lie in 0..1"),
        ({"zoom": 0.5}, "zoom must lie in 1..4"),
        ({"color": 2.0}, "color must lie in 0..1"),
        ({"gain_db": 99.0}, "gain_db must lie in 0..40"),
        ({"time_mask": -1}, "time_mask must not be negative"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_options(**options)


def test_augmentation_is_what_the_training_configuration_says() -> None:
    settings = TrainConfig.from_options(zoom=1.5, color=0.1, mixture=(1, 3), mix_level="rms", silent=0.2)
    assert settings.augmentation == Augmentation(zoom=1.5, color=0.1)
    assert settings.mixing == Mixing(mixture=(1, 3), mix_level="rms", silent=0.2)
