"""Large collections as WebDataset shards: tar files that are streamed, each sample a picture, a sound and its labels.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import tarfile
import wave
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from avgn.config import Config
from avgn.data.augment import Augmentation
from avgn.data.cache import to_float32, to_int16
from avgn.data.dataset import classes_of, read_sound
from avgn.data.mixed import MixedScenes, read_size
from avgn.data.mixing import Mixing
from avgn.data.samples import Batch, Sample, collate
from avgn.data.sampling import picture_counts
from avgn.reading import read_frame
from avgn.runtime.audio import resample
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest

INDEX = "index.json"
FORMAT = "avgn-shards"
VERSION = 1
RATE = 22_050
# the longer side of a picture in a shard: enough for crops of the largest model
LONGEST = 512
# scenes in memory, among which they are shuffled and drawn for mixtures
BUFFER = 512
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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: choose a new one")
    for item in manifest.items:
        if item.frame is None or item.audio is None:
            raise InputError(f"item {item.id!r} of {manifest.path} has no frame or no audio: shards need both")
    if not manifest.items:
        raise InputError(f"{manifest.path} lists no items: nothing to write")
    index_of = {name: index for index, name in enumerate(manifest.classes)}
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts: dict[str, int] = {}
    try:
        with webdataset.ShardWriter(
            str(partial / "%06d.tar"), maxsize=megabytes * 1e6, maxcount=10**9, verbose=0
        ) as writer:
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
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
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


class ShardedDataset(MixedScenes[Packed], IterableDataset[Batch]):
    """Streams batches from shards: the interface to mix and change scenes is `AudioVisualDataset`'s.

    Shards are shuffled by seed and epoch and divided among `world` processes and their loader workers; scenes
    are shuffled in a buffer. An epoch has the same number of batches in every process: one that runs out of scenes
    begins again with its first shard. `position()` is the number of batches done.
    Raises InputError when there are fewer shards than processes, or too few samples for a batch.
    """

    def __init__(
        self,
        shards: Shards,
        config: Config,
        batch_size: int,
        *,
        seed: int = 0,
        position: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        augmentation: Augmentation | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__(config, augmentation or Augmentation(), mixing or Mixing())
        if shards.classes != config.classes:
            raise InputError(
                f"{shards.folder} has the classes {', '.join(shards.classes)}, the model has "
                f"{', '.join(config.classes)}: they must be the same, in the same order"
            )
        if len(shards.files) < world:
            raise InputError(
                f"{shards.folder} has {len(shards.files)} shards for {world} processes: write smaller ones"
            )
        if len(shards) < batch_size * world:
            raise InputError(
                f"{len(shards)} items don't fill a batch of {batch_size * world}: choose a smaller batch_size"
            )
        self.shards = shards
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self.rank, self.world = rank, world
        self.read_size = read_size(config, self.augmentation)
        self._read_last: deque[Packed] = deque(maxlen=BUFFER)

    def __len__(self) -> int:
        return len(self.shards) // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, done = divmod(self.position(), len(self))
        counts = picture_counts(self.seed, epoch, len(self), self.mixing.pictures)
        rng = np.random.default_rng((self.seed, epoch, self.rank, number))
        scenes = self._scenes(epoch, number, workers, rng)
        self._read_last.clear()
        # loaders take the batches of their workers in turn
        for batch in range(number, len(self), workers):
            firsts = list(itertools.islice(scenes, self.batch_size))
            if batch < done:
                continue
            drawn = np.random.default_rng((self.seed, epoch, self.rank, batch, 2))
            samples: list[Sample] = [self.sample(first, int(counts[batch]), drawn) for first in firsts]
            yield collate(samples, self.config.num_classes)

    def labels(self, handle: Packed) -> tuple[frozenset[int], frozenset[int]]:
        """The classes of a scene that sound and that are visible."""
        return handle.sounding, handle.visible

    def draw(self, rng: np.random.Generator) -> Packed:
        """Any of the scenes that were read last."""
        return self._read_last[int(rng.integers(len(self._read_last)))]

    def read(self, handle: Packed) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A scene's picture and sound, decoded."""
        import cv2

        from avgn.runtime.image import resize

        image: Any = cv2.imdecode(np.frombuffer(handle.frame, dtype=np.uint8), cv2.IMREAD_COLOR)
        with wave.open(io.BytesIO(handle.audio)) as file:
            rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        sound = to_float32(samples.astype(np.int16))
        if rate != self.config.sample_rate:
            sound = resample(sound, rate, self.config.sample_rate)
        return resize(np.ascontiguousarray(image[..., ::-1]), self.read_size), sound

    def _scenes(self, epoch: int, number: int, workers: int, rng: np.random.Generator) -> Iterator[Packed]:
        """This process's and worker's scenes in random order, each once a pass; endless, for others may have more."""
        share = self._share(epoch, number, workers)
        while True:
            waiting: list[Packed] = []
            for scene in itertools.chain.from_iterable(_samples(self.shards.folder / name) for name in share):
                self._read_last.append(scene)
                waiting.append(scene)
                if len(waiting) > BUFFER:
                    yield _take(waiting, rng)
            while waiting:
                yield _take(waiting, rng)

    def _share(self, epoch: int, number: int, workers: int) -> list[str]:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards.files))
        mine = [self.shards.files[k][0] for k in order[self.rank :: self.world]]
        return mine[number::workers] or [mine[number % len(mine)]]


def build_shard_loader(dataset: ShardedDataset, workers: int = 0, *, pin: bool = False) -> DataLoader[Batch]:
    """A loader of the batches that the data set makes."""
    return DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0, pin_memory=pin)


def _take(waiting: list[Packed], rng: np.random.Generator) -> Packed:
    place = int(rng.integers(len(waiting)))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()


def _all_of_them(urls: Iterable[Any]) -> Iterable[Any]:
    return urls


def _samples(path: Path) -> Iterator[Packed]:
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
