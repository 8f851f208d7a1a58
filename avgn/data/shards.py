"""Writes and reads large collections as WebDataset shards: streamed tar files of pictures, sounds and their labels.

A folder of shards may come from a stranger, so nothing in it is trusted before it is checked.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from avgn.data.cache import to_int16
from avgn.data.dataset import MOST_WAVEFORM_SECONDS, classes_of, read_waveform
from avgn.data.tar_samples import BLOCK_BYTES, TarWriter, read_tar
from avgn.runtime.documents import parse_json
from avgn.runtime.errors import InputError
from avgn.runtime.image import decode_still, import_cv2
from avgn.runtime.limits import LARGEST_STILL, check_audio
from avgn.runtime.manifest import Manifest
from avgn.runtime.outputs import new_folder
from avgn.runtime.reading import read_still
from avgn.runtime.regular import no_file, read_regular
from avgn.runtime.texts import is_name, is_text

INDEX = "index.json"
FORMAT = "avgn-shards"
SHARD_VERSION = 1
SHARD_RATE = 22_050
# the longer side of a picture in a shard: enough for crops of the largest model
LONGER_SIDE_PIXELS = 512
JPEG_QUALITY = 92
# the names that a shard may have in an index that may come from a stranger
PLAIN_NAME = re.compile(r"\w[\w.-]*")
# bytes of a sound that are read whole: MOST_WAVEFORM_SECONDS as shards are written
WHOLE_WAV_BYTES = 2 * SHARD_RATE * round(MOST_WAVEFORM_SECONDS) + 44
# bytes of an index that are read at most: enough for tens of thousands of shards and classes
MOST_INDEX_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Describes a folder of shards: its class list, and (file name, number of samples) of each."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return sum(count for _, count in self.files)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Holds a sample as it is stored in a shard."""

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
    if megabytes < 1:
        raise InputError(f"megabytes of a shard must be at least 1, got {megabytes}: 256 is usual")
    for item in manifest.items:
        if item.frame is None or item.audio is None:
            raise InputError(f"item {item.id!r} of {manifest.path} has no frame or no audio: shards need both")
    if not manifest.items:
        raise InputError(f"{manifest.path} lists no items: nothing to write")
    index_of = {name: index for index, name in enumerate(manifest.classes)}
    with new_folder(out) as partial:
        with TarWriter(partial, megabytes * 1e6) as writer:
            for done, item in enumerate(manifest.items, start=1):
                assert item.frame is not None
                sounding, visible = classes_of(item, index_of)
                labels = {"id": item.id, "sounding": sorted(sounding), "visible": sorted(visible)}
                members = {
                    "frame.jpg": _jpeg(item.frame),
                    "audio.wav": _wav_of(read_waveform(item, SHARD_RATE)),
                    "labels.json": json.dumps(labels).encode(),
                }
                writer.write(f"{done - 1:09d}", members)
                if progress:
                    progress(done, len(manifest.items))
        files = sorted(writer.counts.items())
        facts = {"format": FORMAT, "version": SHARD_VERSION, "classes": manifest.classes, "files": files}
        (partial / INDEX).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return out


def read_shards(folder: Path) -> Shards:
    """Read what a folder of shards holds.

    Raises InputError for a folder that isn't one of shards, lacks a file, or names a file outside itself.
    """
    facts = _read_index(folder / INDEX)
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("version")) != (FORMAT, SHARD_VERSION):
        raise InputError(f"{folder / INDEX} is not of {FORMAT} version {SHARD_VERSION}: write it with avgn shard again")
    classes, files = facts.get("classes"), facts.get("files")
    if not isinstance(classes, list) or not classes or not all(_is_label(name) for name in classes):
        raise InputError(f"{folder / INDEX}: classes must be a list of names: write it with avgn shard again")
    if len(set(classes)) != len(classes):
        raise InputError(f"{folder / INDEX}: classes must be unique: write it with avgn shard again")
    if not isinstance(files, list) or not files:
        raise InputError(f"{folder / INDEX}: files must be a list of shards: write it with avgn shard again")
    checked = tuple(_check_file(folder, entry) for entry in files)
    if len(set(checked)) != len(checked):
        raise InputError(f"{folder / INDEX} names a shard twice: write it with avgn shard again")
    return Shards(folder=folder, classes=tuple(classes), files=checked)


def read_samples(path: Path, num_classes: int, place: Callable[[], float] = lambda: 0.5) -> Iterator[Packed]:
    """Yield the samples of a shard in order; labels are below `num_classes`.

    Of a long sound MOST_WAVEFORM_SECONDS are read; `place()` in 0..1 says where they lie. Raises InputError for a file
    that is no shard.
    """
    try:
        for raw in read_tar(path, {"audio.wav": lambda member: _read_wav(member, place)}):
            labels = parse_json(raw["labels.json"])
            yield Packed(
                frame=raw["frame.jpg"],
                audio=raw["audio.wav"],
                sounding=_indices(labels["sounding"], num_classes),
                visible=_indices(labels["visible"], num_classes),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, tarfile.TarError, wave.Error) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"shard {path} can't be read ({reason}): write it again") from None


def decode(scene: Packed) -> tuple[NDArray[np.uint8], NDArray[np.int16], int]:
    """Decode a scene's picture [H, W, 3] RGB, its sound [T] and the sound's rate. Raises InputError for what is
    damaged."""
    try:
        image: Any = decode_still("its picture", scene.frame)
        with wave.open(io.BytesIO(scene.audio)) as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            check_audio("its sound", rate, channels)
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    except (wave.Error, EOFError, ValueError) as error:
        raise InputError(f"a scene of a shard can't be decoded ({error}): write the shards again") from None
    if image is None or (width, channels) != (2, 1) or not samples.size or rate < 1:
        raise InputError("a scene of a shard has a damaged picture or sound: write the shards again")
    return np.ascontiguousarray(image[..., ::-1]), samples.astype(np.int16), rate


def _read_index(path: Path) -> Any:
    try:
        return parse_json(read_regular(path, MOST_INDEX_BYTES))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path.parent} holds no readable {INDEX} ({reason}): write it with avgn shard") from None


def _check_file(folder: Path, entry: Any) -> tuple[str, int]:
    """Check an entry of the index against the file; return the shard's name and number of samples."""
    name, count = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    if not isinstance(name, str) or type(count) is not int or count < 1:
        shown = repr(entry)[:60]
        raise InputError(
            f"{folder / INDEX}: a shard must be a name and a number of samples, got {shown}: write it again"
        )
    if not PLAIN_NAME.fullmatch(name) or len(name) > 200:
        raise InputError(
            f"{folder / INDEX} names the shard {name[:80]!r}, which is no plain file name (letters, digits, '.', '_', "
            "'-'): a shard lies in the folder itself"
        )
    file = folder / name
    if not file.is_file():
        raise InputError(f"shard {name} of {folder} {no_file(file)}: copy it there or write the shards again")
    if file.resolve().parent != folder.resolve():
        raise InputError(f"shard {name} of {folder} is a link out of the folder: copy the file there")
    # the number decides how much is allocated: a sample has at least three members
    if count > file.stat().st_size // (3 * BLOCK_BYTES):
        raise InputError(f"shard {name} of {folder} is too small for {count} samples: copy it again")
    return name, count


def _is_label(name: Any) -> bool:
    return isinstance(name, str) and is_name(name) and is_text(name)


def _indices(raw: Any, count: int) -> frozenset[int]:
    if not isinstance(raw, list) or not all(type(index) is int and 0 <= index < count for index in raw):
        raise ValueError(f"labels must be class indices below {count}, got {repr(raw)[:40]}")
    return frozenset(raw)


def _jpeg(path: Path) -> bytes:
    """Encode JPEG bytes of at most LONGER_SIDE_PIXELS a side, or return the file's own if it is one already."""
    cv2 = import_cv2()
    image = read_still("frame", path)
    scale = LONGER_SIDE_PIXELS / max(image.shape[:2])
    if scale >= 1 and path.suffix.lower() in (".jpg", ".jpeg"):
        return read_regular(path, LARGEST_STILL)
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def _wav_of(waveform: NDArray[np.float32]) -> bytes:
    return _wav(to_int16(waveform).astype("<i2").tobytes(), SHARD_RATE)


def _wav(samples: bytes, rate: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return out.getvalue()


def _read_wav(member: IO[bytes], place: Callable[[], float]) -> bytes:
    """Read a sound's wav, or that of MOST_WAVEFORM_SECONDS of it, where it has more."""
    size = member.seek(0, io.SEEK_END)
    member.seek(0)
    if size <= WHOLE_WAV_BYTES:
        return member.read()
    with wave.open(member) as file:
        rate = file.getframerate()
        check_audio("its sound", rate, file.getnchannels())
        if (file.getsampwidth(), file.getnchannels()) != (2, 1):
            raise ValueError("its sound is not of one channel of 16 bits")
        # the header's number of samples is a claim
        there = min(file.getnframes(), (size - member.tell()) // 2)
        length = min(there, round(MOST_WAVEFORM_SECONDS * rate))
        file.setpos(round(place() * (there - length)))
        return _wav(file.readframes(length), rate)
