"""Shards give the scenes that the manifest gives, in parts to processes and workers, and train through the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.config import Config, preset
from avgn.data import AudioVisualDataset, Key, Mixing
from avgn.data.augment import NONE
from avgn.data.shards import Shards, read_shards, write_shards
from avgn.data.streaming import ShardedDataset, build_shard_loader
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest, read_manifest
from tests.squares import CLASSES, write_squares

ROOT = Path(__file__).resolve().parents[2]
COUNT = 30


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_squares(tmp_path_factory.mktemp("shards") / "set", COUNT, seconds=0.4))


@pytest.fixture(scope="module")
def shards(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    out = tmp_path_factory.mktemp("shards") / "out"
    # a megabyte holds all of these small scenes: several writers stand for several shards
    write_shards(manifest, out)
    found = read_shards(out)
    assert found.files == (("000000.tar", COUNT),) and found.classes == CLASSES
    return found


@pytest.fixture(scope="module")
def several(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The same scenes cut into five shards by hand."""
    folder = tmp_path_factory.mktemp("several")
    whole = write_shards(manifest, folder / "one") / "000000.tar"
    files = []
    with tarfile.open(whole) as archive:
        members = archive.getmembers()
        for k in range(5):
            with tarfile.open(folder / f"{k:06d}.tar", "w") as part:
                for member in members[k * 18 : (k + 1) * 18]:
                    part.addfile(member, archive.extractfile(member))
            files.append([f"{k:06d}.tar", 6])
    facts = {"format": "avgn-shards", "version": 1, "classes": list(CLASSES), "files": files}
    (folder / "index.json").write_text(json.dumps(facts))
    return read_shards(folder)


@pytest.fixture(scope="module")
def config() -> Config:
    return preset("avgn-tiny", classes=CLASSES, image_size=(64, 64), window_seconds=0.4)


def sounds(batches: Iterator[Any]) -> list[bytes]:
    return [row.numpy().tobytes() for batch in batches for row in batch.waveform]


def test_an_epoch_of_one_process_is_every_scene_once_as_the_manifest_gives_it(
    manifest: Manifest, shards: Shards, config: Config
) -> None:
    plain = AudioVisualDataset(manifest, config, train=True, augmentation=NONE)
    expected = {plain[Key(0, n)].waveform.tobytes(): n for n in range(COUNT)}
    found = []
    for batch in ShardedDataset(shards, config, 5, augmentation=NONE):
        for row in range(5):
            n = expected[batch.waveform[row].numpy().tobytes()]
            found.append(n)
            sample = plain[Key(0, n)]
            assert set(batch.labels.sounding[row].nonzero()[:, 0].tolist()) == set(sample.sounding)
            assert set(batch.labels.visible[row].nonzero()[:, 0].tolist()) == set(sample.visible)
            # the squares are PNG: shards hold JPEG
            mean = [each.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) for each in (batch.image[row].numpy(), sample.image)]
            assert np.abs(mean[0] - mean[1]).mean() < 3
    assert sorted(found) == list(range(COUNT)) and found != sorted(found)


def test_the_order_depends_on_seed_epoch_and_position(several: Shards, config: Config) -> None:
    def batches(**options: Any) -> list[bytes]:
        return sounds(iter(ShardedDataset(several, config, 5, augmentation=NONE, **options)))

    assert batches() == batches() and batches() != batches(seed=1)
    assert batches(position=lambda: 2) == batches()[10:]
    assert batches(position=lambda: 6) != batches()


def test_processes_and_workers_share_the_shards(several: Shards, config: Config) -> None:
    mixing = Mixing(pictures=(1, 2))
    parts = [ShardedDataset(several, config, 3, rank=rank, world=2, mixing=mixing) for rank in (0, 1)]
    widths = [[batch.image.shape[2] for batch in part] for part in parts]
    assert widths[0] == widths[1] and set(widths[0]) == {64, 128}
    alone = [ShardedDataset(several, config, 3, rank=rank, world=2, augmentation=NONE) for rank in (0, 1)]
    first, second = (set(sounds(iter(part))) for part in alone)
    assert not first & second
    loaded = list(build_shard_loader(ShardedDataset(several, config, 3, mixing=mixing), workers=2))
    assert len(loaded) == COUNT // 3
    assert [batch.image.shape[2] for batch in loaded] == [
        batch.image.shape[2] for batch in ShardedDataset(several, config, 3, mixing=mixing)
    ]


def test_training_from_shards_through_the_commands(manifest: Manifest, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "avgn", *(str(part) for part in arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    packed, output = tmp_path / "packed", tmp_path / "run"
    assert run("shard", manifest.path, packed).returncode == 0
    small = ("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1")
    sizes = ("--model.image-size=[64,64]", "--model.window-seconds=0.3", "--visual-weights", "random", "--threads", 1)
    options = ("--preset", "avgn-tiny", *small, *sizes, "--batch-size", 6, "--workers", 1, "--mixture", "[1,2]")
    done = run("train", packed, "--output", output, *options, "--steps", 7)
    assert done.returncode == 0, done.stderr
    assert len((output / "losses.jsonl").read_text().splitlines()) == 7
    again = run("shard", manifest.path, packed)
    assert again.returncode == 2 and "not an empty folder" in again.stderr
    (packed / "000000.tar").unlink()
    lost = run("train", packed, "--output", tmp_path / "other", *options, "--steps", 1)
    assert lost.returncode == 2 and "shard 000000.tar" in lost.stderr and not (tmp_path / "other").exists()


def test_what_are_no_shards_is_refused(manifest: Manifest, several: Shards, config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no readable index.json"):
        read_shards(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "avgn-shards", "version": 9}')
    with pytest.raises(InputError, match="is not of avgn-shards version 1"):
        read_shards(tmp_path)
    facts = {"format": "avgn-shards", "version": 1, "classes": ["a"], "files": [["../000000.tar", 1]]}
    (tmp_path / "index.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"shard \.\./000000.tar"):
        read_shards(tmp_path)
    with pytest.raises(InputError, match="has 5 shards for 9 processes"):
        ShardedDataset(several, config, 1, world=9)
    with pytest.raises(InputError, match="don't fill a batch of 40"):
        ShardedDataset(several, config, 40)
    with pytest.raises(InputError, match="they must be the same"):
        ShardedDataset(several, preset("avgn-tiny"), 4)
    with pytest.raises(InputError, match="at least 1"):
        write_shards(manifest, tmp_path / "new", megabytes=0)
    (several.folder / "000003.tar").write_bytes(b"torn" * 300)
    with pytest.raises(InputError, match="000003.tar can't be read"):
        list(ShardedDataset(several, config, 5))
