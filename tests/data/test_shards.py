"""Shards give the scenes that the manifest gives, in parts to processes and workers, and train through the command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avgn.config import Config, preset
from avgn.data.augment import NONE
from avgn.data.dataset import AudioVisualDataset
from avgn.data.mixing import Mixing
from avgn.data.sampling import Key
from avgn.data.shards import Shards, decode, read_samples, read_shards, write_shards
from avgn.data.streaming import ShardedDataset, build_shard_loader
from avgn.data.tar_samples import TarWriter
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, read_manifest, write_manifest
from avgn.scenes import write_wav
from tests.commands import forked
from tests.squares import CLASSES, write_squares

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


def test_what_are_no_shards_is_refused(manifest: Manifest, several: Shards, config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no readable index.json"):
        read_shards(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "avgn-shards", "version": 9}')
    with pytest.raises(InputError, match="is not of avgn-shards version 1"):
        read_shards(tmp_path)
    facts = {"format": "avgn-shards", "version": 1, "classes": ["a"], "files": [["../000000.tar", 1]]}
    (tmp_path / "index.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"the shard '\.\./000000.tar', which is no plain"):
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


def test_other_readers_of_webdataset_read_our_shards(shards: Shards) -> None:
    import webdataset

    found = list(webdataset.WebDataset(str(shards.folder / "000000.tar"), shardshuffle=False))
    ours = list(read_samples(shards.folder / "000000.tar", len(CLASSES)))
    assert [sample["__key__"] for sample in found] == [f"{n:09d}" for n in range(COUNT)]
    assert [(sample["frame.jpg"], sample["audio.wav"]) for sample in found] == [(s.frame, s.audio) for s in ours]
    assert [sorted(s.sounding) for s in ours] == [json.loads(sample["labels.json"])["sounding"] for sample in found]


NAMES = (
    "a.tar::pipe:touch ran",
    "pipe:touch ran",
    "pipe:touch ran; cat a.tar",
    "file:a.tar",
    "http:example.com",
    "http://localhost:9/a.tar",
    "gs:bucket",
    "s3:bucket",
    "hf:set",
    "ais:bucket",
    "{a..b}.tar",
    "{a,b}.tar",
    "|touch ran",
    "`touch ran`.tar",
    "$(touch ran).tar",
    "-.tar",
    "sub/a.tar",
    "/a.tar",
    "sub\\a.tar",
    "..",
    ".",
    ".hidden.tar",
    "a.tar\n",
    "a\0.tar",
    "",
    "a" * 201,
)


@pytest.mark.parametrize("name", NAMES, ids=[repr(name)[:30] for name in NAMES])
def test_an_index_names_nothing_but_files_of_its_folder(
    name: str, shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("set")
    (folder / "sub").mkdir(parents=True)
    tar = (shards.folder / "000000.tar").read_bytes()
    for place in (folder / "a.tar", folder / "b.tar", folder / "sub" / "a.tar"):
        place.write_bytes(tar)
    if name and "/" not in name and "\0" not in name and len(name) < 200 and name.strip("."):
        # such a file may well be there
        (folder / name).write_bytes(tar)
    facts = {"format": "avgn-shards", "version": 1, "classes": list(CLASSES), "files": [[name, COUNT]]}
    (folder / "index.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="no plain file name") as refusal:
        read_shards(folder)
    assert "\n" not in str(refusal.value) and "\0" not in str(refusal.value)
    assert not (tmp_path / "ran").exists() and not (folder / "ran").exists()


FOLDERS = ("pipe:touch ran", "a::pipe:touch ran", "set{a..b}", "http:x", "gs:x", "x|touch ran", "file:x", "%06d", "-")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_a_folder_whatever_it_is_called(
    name: str, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = Manifest(path=manifest.path, classes=manifest.classes, items=manifest.items[:2])
    write_shards(few, Path(name))
    found = read_shards(Path(name))
    assert found.files == (("000000.tar", 2),)
    assert len(list(read_samples(found.folder / "000000.tar", len(CLASSES)))) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_shards_of_about_the_size_asked_for(manifest: Manifest, tmp_path: Path) -> None:
    from avgn.data.tar_samples import read_tar

    with TarWriter(tmp_path, 2500) as writer:
        for n in range(7):
            writer.write(f"{n:09d}", {"b": bytes([n]) * 900, "a.x": b""})
    assert writer.counts == {"000000.tar": 3, "000001.tar": 3, "000002.tar": 1}
    read = [sample for name in sorted(writer.counts) for sample in read_tar(tmp_path / name)]
    assert read == [{"a.x": b"", "b": bytes([n]) * 900} for n in range(7)]


def test_an_index_is_not_believed(shards: Shards, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes((shards.folder / "000000.tar").read_bytes())
    outside = tmp_path / "set"
    outside.mkdir()
    (outside / "link.tar").symlink_to(tmp_path / "a.tar")
    (outside / "empty.tar").write_bytes(bytes(10240))
    (outside / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes())
    os.mkfifo(outside / "fifo.tar")
    good = {"format": "avgn-shards", "version": 1, "classes": ["a", "b"], "files": [["a.tar", 3]]}
    for change, reason in (
        ({"files": [["link.tar", COUNT]]}, "is a link out of the folder"),
        ({"files": [["fifo.tar", COUNT]]}, "does not exist"),
        # batches are counted, and their sizes drawn, before anything is read
        ({"files": [["a.tar", 10**15]]}, "too small for"),
        ({"files": [["a.tar", -1]]}, "a name and a number"),
        ({"files": [["a.tar", 1e400]]}, "a name and a number"),
        ({"files": [["a.tar", True]]}, "a name and a number"),
        ({"files": [["a.tar", 3], ["a.tar", 3]]}, "twice"),
        ({"files": [["a.tar"]]}, "a name and a number"),
        ({"files": {}}, "files must be a list"),
        ({"files": None}, "files must be a list"),
        ({"classes": "ab"}, "classes must be a list"),
        ({"classes": ["a", 2]}, "classes must be a list"),
        ({"classes": ["a", "b\x1b[2J"]}, "classes must be a list"),
        ({"classes": ["a", "a"]}, "unique"),
    ):
        (outside / "index.json").write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=reason):
            read_shards(outside)
    (outside / "index.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="no readable index.json"):
        read_shards(outside)
    (outside / "index.json").unlink()
    os.mkfifo(outside / "index.json")
    with pytest.raises(InputError, match="no readable index.json"):
        read_shards(outside)


def test_what_lies_in_a_shard_is_not_believed(config: Config, tmp_path: Path) -> None:
    def scenes(members: dict[str, bytes], change: Any = None) -> list[Any]:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(f"x.{name}")
                member.size = len(content)
                if change is not None:
                    change(member)
                archive.addfile(member, io.BytesIO(content))
        return [decode(scene) for scene in read_samples(tmp_path / "a.tar", 4)]

    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(200))
    picture = bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1])
    labels = {"sounding": [0], "visible": []}
    good = {"frame.jpg": picture, "audio.wav": sound.getvalue(), "labels.json": json.dumps(labels).encode()}
    assert scenes(good)[0][0].shape == (8, 8, 3)
    wrong: dict[str, Any]
    for wrong in ({"sounding": [4]}, {"sounding": [-1]}, {"sounding": [[]]}, {"visible": 3}, {"visible": ["0"]}):
        with pytest.raises(InputError, match="can't be read"):
            scenes(good | {"labels.json": json.dumps(labels | wrong).encode()})
    for name in good:
        for content in (b"", b"torn", b"[" * 100_000):
            with pytest.raises(InputError):
                scenes(good | {name: content})

    def link(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"

    assert scenes(good, link) == []

    def huge(member: tarfile.TarInfo) -> None:
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}

    with pytest.raises(InputError, match="can't be read"):
        scenes(good, huge)
    (tmp_path / "empty.tar").write_bytes(bytes(20480))
    empty = Shards(folder=tmp_path, classes=config.classes, files=(("empty.tar", 6),))
    with pytest.raises(InputError, match="hold no samples"):
        list(ShardedDataset(empty, config, 2))


def wav(samples: NDArray[np.int16], rate: int = 22_050, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


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


@pytest.mark.parametrize(
    "sound",
    [
        b"RIFF" + bytes(3_000_000),
        wav(np.zeros(4_000_000, np.int16), channels=2),
        wav(np.zeros(4_000_000, np.int16), rate=1),
    ],
)
def test_a_long_sound_that_is_none_is_refused(sound: bytes, tmp_path: Path) -> None:
    labels = json.dumps({"sounding": [0], "visible": [0]}).encode()
    with TarWriter(tmp_path, 1e9) as writer:
        writer.write("0", {"frame.jpg": b"", "audio.wav": sound, "labels.json": labels})
    with pytest.raises(InputError, match="can't be read .*write it again"):
        list(read_samples(tmp_path / "000000.tar", 1))


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
