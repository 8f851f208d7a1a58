"""Where training's batches come from: a manifest, or shards."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import DataLoader

from avgn.config import Config
from avgn.data.batch import collate
from avgn.data.dataset import AudioVisualDataset
from avgn.data.loading import build_loader
from avgn.data.sampling import Key, SeededBatches, class_balance
from avgn.data.shards import Shards
from avgn.data.streaming import ShardedDataset, build_shard_loader
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest
from avgn.training.config import TrainConfig
from avgn.training.processes import Processes
from avgn.types import Batch

# scenes that a stage of training looks at before it begins
SURVEY = 1024


class TrainingSource:
    """The batches of an epoch for this process; `len` is their number.

    Raises InputError for scenes that the configuration can't be trained on.
    """

    def __init__(self, scenes: Manifest | Shards, config: Config, training: TrainConfig, processes: Processes) -> None:
        self.training = training
        self._steps: Callable[[], int] = lambda: 0
        place = {"rank": processes.rank, "world": processes.count}
        self._batches: SeededBatches | ShardedDataset
        self._scenes: AudioVisualDataset | None = None
        if isinstance(scenes, Shards):
            if training.balance or training.cache or training.audio_cache is not None:
                raise InputError("balance, cache and audio_cache are for manifests: leave them out with shards")
            self._batches = ShardedDataset(
                scenes,
                config,
                training.batch_size,
                seed=training.seed,
                position=self._position,
                augmentation=training.augmentation,
                mixing=training.mixing,
                **place,
            )
            return
        self._scenes = AudioVisualDataset(
            scenes,
            config,
            train=True,
            seed=training.seed,
            cache=training.cache,
            audio_cache=training.audio_cache_folder,
            augmentation=training.augmentation,
            mixing=training.mixing,
        )
        self._batches = SeededBatches(
            len(self._scenes),
            training.batch_size,
            seed=training.seed,
            position=self._position,
            scenes=training.mixing.mixture,
            weights=class_balance(scenes.items) if training.balance else None,
            **place,
        )

    def __len__(self) -> int:
        return len(self._batches)

    def loader(self, steps: Callable[[], int], *, pin: bool = False) -> DataLoader[object]:
        """Return a loader that goes on after `steps()` optimiser steps."""
        self._steps = steps
        if isinstance(self._batches, ShardedDataset):
            return build_shard_loader(self._batches, self.training.workers, pin=pin)
        assert self._scenes is not None
        return build_loader(self._scenes, self._batches, self.training.workers, pin=pin)

    def survey(self) -> Iterator[Batch]:
        """Some of the training scenes, the same at every call, for what a stage of training begins with."""
        if isinstance(self._batches, ShardedDataset):
            again = copy.copy(self._batches)
            again.position = lambda: 0
            yield from itertools.islice(again, -(-SURVEY // self.training.batch_size))
            return
        assert self._scenes is not None
        order = np.random.default_rng((self.training.seed, SURVEY)).permutation(len(self._scenes))[:SURVEY]
        for start in range(0, len(order), self.training.batch_size):
            some = order[start : start + self.training.batch_size]
            keys = [Key(0, int(item), self.training.mixing.mixture[0]) for item in some]
            yield collate([self._scenes[key] for key in keys], self._scenes.config.num_classes)

    def _position(self) -> int:
        return position(self._steps(), self.training.accumulate, len(self))


def position(steps: int, accumulate: int, batches: int) -> int:
    """Batches that `steps` optimiser steps have taken; the last step of an epoch may take fewer than `accumulate`."""
    epochs, step = divmod(steps, -(-batches // accumulate))
    return epochs * batches + step * accumulate
