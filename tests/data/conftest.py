"""A small data set of squares and shards of it."""

from __future__ import annotations

import json
import tarfile

import pytest

from avgn.config import Config, preset
from avgn.data.shards import Shards, read_shards, write_shards
from avgn.runtime.manifest import Manifest, read_manifest
from tests.data.sounds import COUNT
from tests.squares import CLASSES, write_squares


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
