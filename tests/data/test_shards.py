"""Shards give the scenes that the manifest gives, in parts to processes and workers, and train through the command."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avgn.config import Config
from avgn.data.augment import NONE
from avgn.data.dataset import AudioVisualDataset
from avgn.data.mixing import Mixing
from avgn.data.sampling import Key
from avgn.data.shards import Shards, decode, read_samples, write_shards
from avgn.data.streaming import ShardedDataset, build_shard_loader
from avgn.data.tar_samples import TarWriter
from avgn.runtime.manifest import Item, Manifest, read_manifest, write_manifest
from avgn.scenes import write_wav
from tests.commands import forked
from tests.data.sounds import COUNT, wav
from tests.squares import CLASSES


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
    mixing = Mixing(mixture=(1, 2))
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
        return forked(*arguments, cwd=tmp_path)

    # a relative path that WebDataset's own opener would run, and fill in as a pattern
    packed, output = Path("pipe:touch ran::pipe:touch ran; cat {a..b} %s"), tmp_path / "run"
    assert run("shard", manifest.path, packed).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [packed.name]
    small = ("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1")
    sizes = ("--model.image-size=[64,64]", "--model.window-seconds=0.3", "--visual-weights", "random", "--threads", 1)
    options = ("--preset", "avgn-tiny", *small, *sizes, "--batch-size", 6, "--workers", 1, "--mixture", "[1,2]")
    done = run("train", packed, "--output", output, *options, "--steps", 7)
    assert done.returncode == 0, done.stderr
    assert len((output / "losses.jsonl").read_text().splitlines()) == 7
    assert not (tmp_path / "ran").exists()
    again = run("shard", manifest.path, packed)
    assert again.returncode == 2 and "not an empty folder" in again.stderr
    index = tmp_path / packed / "index.json"
    facts = json.loads(index.read_text())
    index.write_text(json.dumps(facts | {"files": [["000000.tar::pipe:touch ran", COUNT]]}))
    (tmp_path / packed / "000000.tar::pipe:touch ran").write_bytes(b"")
    hostile = run("train", packed, "--output", tmp_path / "other", *options, "--steps", 1)
    assert hostile.returncode == 2 and "no plain file name" in hostile.stderr
    assert not (tmp_path / "other").exists() and not (tmp_path / "ran").exists()
    index.write_text(json.dumps(facts))
    (tmp_path / packed / "000000.tar").unlink()
    lost = run("train", packed, "--output", tmp_path / "other", *options, "--steps", 1)
    assert lost.returncode == 2 and "shard 000000.tar" in lost.stderr and not (tmp_path / "other").exists()


def test_other_readers_of_webdataset_read_our_shards(shards: Shards) -> None:
    import webdataset

    found = list(webdataset.WebDataset(str(shards.folder / "000000.tar"), shardshuffle=False))
    ours = list(read_samples(shards.folder / "000000.tar", len(CLASSES)))
    assert [sample["__key__"] for sample in found] == [f"{n:09d}" for n in range(COUNT)]
    assert [(sample["frame.jpg"], sample["audio.wav"]) for sample in found] == [(s.frame, s.audio) for s in ours]
    assert [sorted(s.sounding) for s in ours] == [json.loads(sample["labels.json"])["sounding"] for sample in found]


def test_shards_of_about_the_size_asked_for(manifest: Manifest, tmp_path: Path) -> None:
    from avgn.data.tar_samples import read_tar

    with TarWriter(tmp_path, 2500) as writer:
        for n in range(7):
            writer.write(f"{n:09d}", {"b": bytes([n]) * 900, "a.x": b""})
    assert writer.counts == {"000000.tar": 3, "000001.tar": 3, "000002.tar": 1}
    read = [sample for name in sorted(writer.counts) for sample in read_tar(tmp_path / name)]
    assert read == [{"a.x": b"", "b": bytes([n]) * 900} for n in range(7)]


def test_a_minute_of_a_long_sound_is_read_from_a_shard(config: Config, tmp_path: Path) -> None:
    # each sample says where it lies, in steps of 600
    minutes = (np.arange(22_050 * 600) // 600).astype(np.int16)
    picture = bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1])
    labels = json.dumps({"sounding": [0], "visible": [0]}).encode()
    with TarWriter(tmp_path, 1e9) as writer:
        for n in range(4):
            writer.write(f"{n:09d}", {"frame.jpg": picture, "audio.wav": wav(minutes), "labels.json": labels})
    minute = 22_050 * 60
    for place in (0.0, 0.3, 1.0):
        tracemalloc.start()
        for scene in read_samples(tmp_path / "000000.tar", 1, lambda place=place: place):  # type: ignore[misc]
            first = round(place * (len(minutes) - minute))
            _, sound, rate = decode(scene)
            assert rate == 22_050 and np.array_equal(sound, minutes[first : first + minute])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6, "26 MB a sound"
    shards = Shards(folder=tmp_path, classes=config.classes, files=(("000000.tar", 4),))
    epochs = [sounds(iter(ShardedDataset(shards, config, 2, position=lambda e=e: 2 * e))) for e in (0, 0, 1)]  # type: ignore[misc]
    assert epochs[0] == epochs[1] and len({*epochs[0], *epochs[2]}) == 8, "every reading draws its part"


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        manifest = read_manifest(_large(tmp_path / suffix[1:], suffix))
        out = write_shards(manifest, tmp_path / f"out{suffix}")
        (scene,) = read_samples(out / "000000.tar", 1)
        assert decode(scene)[0].shape == (512, 288, 3)


def _large(folder: Path, suffix: str) -> Path:
    """A manifest of one portrait picture of 1600 x 900 pixels."""
    folder.mkdir()
    assert cv2.imwrite(str(folder / f"a{suffix}"), np.full((1600, 900, 3), 90, np.uint8))
    write_wav(folder / "a.wav", np.full(2000, 0.1, np.float32))
    item = Item(
        id="a", frame=folder / f"a{suffix}", audio=folder / "a.wav", sources=(), split="train", dataset="x", video="a"
    )
    write_manifest(folder / "m.jsonl", ("a",), [item])
    return folder / "m.jsonl"
