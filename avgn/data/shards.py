"""Large collections as WebDataset shards: tar files that are streamed, each sample a picture, a sound and its labels.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

import io
import json
import tarfile
import wave
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.data.cache import to_int16
from avgn.data.dataset import classes_of, read_sound
from avgn.reading import read_frame
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest
from avgn.runtime.outputs import new_folder

INDEX = "index.json"
FORMAT = "avgn-shards"
VERSION = 1
RATE = 22_050
# the longer side of a picture in a shard: enough for crops of the largest model
LONGEST = 512
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A folder of shards: its class list, and (file name, number of samples) of each."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return sum(count for _, count in self.files)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A sample as it lies in a shard."""

    frame: bytes
    audio: bytes
    sounding: frozenset[int]
    visible: frozenset[int]


def write_shards(
    manifest: Manifest, out: Path, *, megabytes: int = 256, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write a manifest's items as OUT/000000.tar ... of about `megabytes` each, and OUT/index.json when all is done.

    Pictures are JPEG of at most 512 pixels, sounds 16-bit mono wav at 22 050 Hz. Raises InputError for a folder that is
    not empty and for items without a frame or sound.
    """
    import webdataset

    if megabytes < 1:
        raise InputError(f"megabytes of a shard must be at least 1, got {megabytes}: 256 is usual")
    for item in manifest.items:
        if item.frame is None or item.audio is None:
            raise InputError(f"item {item.id!r} of {manifest.path} has no frame or no audio: shards need both")
    if not manifest.items:
        raise InputError(f"{manifest.path} lists no items: nothing to write")
    index_of = {name: index for index, name in enumerate(manifest.classes)}
    counts: dict[str, int] = {}
    with new_folder(out) as partial:
        # the folder's own name may hold what means something in a pattern
        pattern = str(partial).replace("%", "%%") + "/%06d.tar"
        with webdataset.ShardWriter(pattern, maxsize=megabytes * 1e6, maxcount=10**9, verbose=0) as writer:
            for done, item in enumerate(manifest.items, start=1):
                assert item.frame is not None
                sounding, visible = classes_of(item, index_of)
                labels = {"id": item.id, "sounding": sorted(sounding), "visible": sorted(visible)}
                writer.write(
                    {
                        "__key__": f"{done - 1:09d}",
                        "frame.jpg": _picture(item.frame),
                        "audio.wav": _sound(read_sound(item, RATE)),
                        "labels.json": json.dumps(labels).encode(),
                    }
                )
                name = Path(writer.fname).name
                counts[name] = counts.get(name, 0) + 1
                if progress:
                    progress(done, len(manifest.items))
        facts = {"format": FORMAT, "version": VERSION, "classes": manifest.classes, "files": sorted(counts.items())}
        (partial / INDEX).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return out


def read_shards(folder: Path) -> Shards:
    """The facts of a folder of shards. Raises InputError for what is none, or lacks a file."""
    try:
        facts = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no readable {INDEX} ({error}): write it with avgn shard") from None
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise InputError(f"{folder / INDEX} is not of {FORMAT} version {VERSION}: write it with avgn shard again")
    files = tuple((str(name), int(count)) for name, count in facts["files"])
    for name, _ in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"shard {name} of {folder} does not exist: copy it there or write the shards again")
    return Shards(folder=folder, classes=tuple(facts["classes"]), files=files)


def _all_of_them(urls: Iterable[Any]) -> Iterable[Any]:
    return urls


def read_samples(path: Path) -> Iterator[Packed]:
    """The samples of a shard in order. Raises InputError for a file that is none."""
    import webdataset

    try:
        # shards were divided among processes and workers already
        samples: Iterable[dict[str, bytes]] = webdataset.WebDataset(
            str(path), shardshuffle=False, nodesplitter=_all_of_them, workersplitter=_all_of_them
        )
        for raw in samples:
            labels = json.loads(raw["labels.json"])
            yield Packed(
                frame=raw["frame.jpg"],
                audio=raw["audio.wav"],
                sounding=frozenset(labels["sounding"]),
                visible=frozenset(labels["visible"]),
            )
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise InputError(f"shard {path} can't be read ({error}): write it again") from None


def _picture(path: Path) -> bytes:
    """JPEG bytes of at most LONGEST pixels a side: the file's own where it is one already."""
    import cv2

    data = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        # for its message
        read_frame(path, (1, 1))
        raise AssertionError("a frame that can't be decoded was read")
    scale = LONGEST / max(image.shape[:2])
    if scale >= 1 and path.suffix.lower() in (".jpg", ".jpeg"):
        return data
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def _sound(sound: NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(to_int16(sound).astype("<i2").tobytes())
    return out.getvalue()
