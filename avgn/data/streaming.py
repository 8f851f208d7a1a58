"""Streams training batches from shards.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from avgn.config import Config
from avgn.data.augment import Augmentation
from avgn.data.batch import collate
from avgn.data.cache import to_float32
from avgn.data.mixed import MixedScenes, read_size
from avgn.data.mixing import Mixing
from avgn.data.sample import Sample
from avgn.data.sampling import scene_counts
from avgn.data.shards import Packed, Shards, decode, read_samples
from avgn.runtime.audio import resample
from avgn.runtime.errors import InputError
from avgn.types import Batch

# how many scenes are kept in memory, to shuffle them and to draw from for mixtures
BUFFER_SCENES = 512


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
        self._read_last: deque[Packed] = deque(maxlen=BUFFER_SCENES)

    def __len__(self) -> int:
        return len(self.shards) // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, done = divmod(self.position(), len(self))
        counts = scene_counts(self.seed, epoch, len(self), self.mixing.mixture)
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
        """Return the classes of a scene that sound and those that are visible."""
        return handle.sounding, handle.visible

    def draw(self, rng: np.random.Generator) -> Packed:
        """Draw any of the scenes that were read last."""
        return self._read_last[int(rng.integers(len(self._read_last)))]

    def read(self, handle: Packed) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Decode a scene's picture and waveform."""
        from avgn.runtime.image import resize

        image, samples, rate = decode(handle)
        waveform = to_float32(samples)
        if rate != self.config.sample_rate:
            waveform = resample(waveform, rate, self.config.sample_rate)
        return resize(image, self.read_size), waveform

    def _scenes(self, epoch: int, number: int, workers: int, rng: np.random.Generator) -> Iterator[Packed]:
        """Yield this process's and worker's scenes in random order, each once a pass, without end: others may have
        more."""
        share = self._share(epoch, number, workers)
        while True:
            waiting: list[Packed] = []
            found = 0
            for scene in self._read_all(share, rng):
                found += 1
                self._read_last.append(scene)
                waiting.append(scene)
                if len(waiting) > BUFFER_SCENES:
                    yield _take(waiting, rng)
            while waiting:
                yield _take(waiting, rng)
            if not found:
                raise InputError(f"shards {', '.join(share)[:80]} hold no samples: write them again")

    def _read_all(self, names: list[str], rng: np.random.Generator) -> Iterator[Packed]:
        for name in names:
            yield from read_samples(self.shards.folder / name, len(self.shards.classes), rng.random)

    def _share(self, epoch: int, number: int, workers: int) -> list[str]:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards.files))
        mine = [self.shards.files[k][0] for k in order[self.rank :: self.world]]
        return mine[number::workers] or [mine[number % len(mine)]]


def build_shard_loader(dataset: ShardedDataset, workers: int = 0, *, pin: bool = False) -> DataLoader[Batch]:
    """Build a loader of the batches that the data set makes."""
    return DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0, pin_memory=pin)


def _take(waiting: list[Packed], rng: np.random.Generator) -> Packed:
    place = int(rng.integers(len(waiting)))
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return waiting.pop()
