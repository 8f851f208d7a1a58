"""Chooses the scenes of each batch: seeded, so that a run can be repeated and resumed; class-balanced on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item

# keeps the draw of a batch's number of scenes apart from that of its items
SCENES_STREAM = 1


class Key(NamedTuple):
    """Holds what a sample depends on besides the data set's seed: `item` is the first of `scenes` that are mixed."""

    epoch: int
    item: int
    scenes: int = 1


class SeededBatches(Sampler[list[Key]]):
    """Draws batches of keys whose content depends only on the seed and the position.

    `position()` is the number of batches that training has done: after a restart the next one follows. Of `world`
    processes, each takes its own `batch_size` of a joint batch. All samples of a joint batch mix the same number of
    scenes, drawn from `scenes` (least, most). With `weights` [length], items are drawn with replacement.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        position: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        scenes: tuple[int, int] = (1, 1),
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Prepare the batches.

        length: number of items. batch_size: items in a batch of one process. seed: of all draws. position: returns the
        number of batches done. rank, world: this process's number and the number of processes. scenes: the least and
        the most that are mixed. weights: [length], how often items are drawn relative to one another.
        Raises InputError if the items don't fill one batch.
        """
        if length < batch_size * world:
            raise InputError(f"{length} items don't fill a batch of {batch_size * world}: choose a smaller batch_size")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self.rank = rank
        self.world = world
        self.scenes = scenes
        self.chance = None if weights is None else weights / weights.sum()

    def __len__(self) -> int:
        return self.length // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, done = divmod(self.position(), len(self))
        rng = np.random.default_rng((self.seed, epoch))
        if self.chance is None:
            order = rng.permutation(self.length)
        else:
            order = rng.choice(self.length, size=self.length, p=self.chance)
        counts = scene_counts(self.seed, epoch, len(self), self.scenes)
        for batch in range(done, len(self)):
            start = (batch * self.world + self.rank) * self.batch_size
            chosen = order[start : start + self.batch_size]
            yield [Key(epoch, int(index), int(counts[batch])) for index in chosen]


def scene_counts(seed: int, epoch: int, batches: int, scenes: tuple[int, int]) -> NDArray[np.int64]:
    """Return how many scenes each batch of an epoch mixes: [batches], the same in every process."""
    rng = np.random.default_rng((seed, epoch, SCENES_STREAM))
    return rng.integers(scenes[0], scenes[1] + 1, size=batches)


def ordered_batches(length: int, batch_size: int) -> list[list[Key]]:
    """Return batches in the manifest's own order, for validation."""
    return [[Key(0, i) for i in range(at, min(at + batch_size, length))] for at in range(0, length, batch_size)]


def class_balance(items: Sequence[Item]) -> NDArray[np.float64]:
    """Return weights [N] of items that make their classes come equally often: the mean of 1 / count over an item's
    classes."""
    labels = [{source.label for source in item.sources} for item in items]
    counts: dict[str, int] = {}
    for names in labels:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    # an item without sources is drawn as often as one of an average class
    plain = len(counts) / max(1, sum(counts.values()))
    return np.array([np.mean([1 / counts[name] for name in names]) if names else plain for names in labels])
