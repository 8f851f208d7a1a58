"""Nothing that a stranger's shards and their index say is believed."""

from __future__ import annotations

import io
import json
import os
import tarfile
import wave
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avgn.config import Config, preset
from avgn.data.shards import Shards, decode, read_samples, read_shards, write_shards
from avgn.data.streaming import ShardedDataset
from avgn.data.tar_samples import TarWriter
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest
from tests.data.sounds import COUNT, wav
from tests.squares import CLASSES


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
        ({"files": [["fifo.tar", COUNT]]}, "shard fifo.tar of .* is a FIFO, not a file: copy it there"),
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
