"""Reads a manifest's scenes as training samples, seeded by item and epoch.

Legend: B batch, T samples, H x W pixels, N sources of a sample (padded), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from avgn.config import Config
from avgn.losses import Labels
from avgn.reading import read_frame, read_wav
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.errors import InputError
from avgn.runtime.image import resize
from avgn.runtime.manifest import Item, Manifest

CROP_MARGIN = 1.15
GAIN_DB = 6.0
PADDING_CHANCE = 0.1
LIGHT = 0.2

Key = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """image [B,H,W,3] uint8, waveform [B,T] float32 and the labels."""

    image: Tensor
    waveform: Tensor
    labels: Labels

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(image=self.image.to(device), waveform=self.waveform.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """image [H,W,3] uint8, waveform [T] float32; indices of the classes that sound, that are visible, and both."""

    image: NDArray[np.uint8]
    waveform: NDArray[np.float32]
    sounding: tuple[int, ...]
    visible: tuple[int, ...]
    order: tuple[int, ...]


class AudioVisualDataset(Dataset[Sample]):
    """The scenes of a manifest; keys are (epoch, index).

    In training, pictures are cropped, flipped and lit at random, sounds cut, scaled and sometimes padded with
    silence; otherwise the whole frame is squashed and the clip's centre taken. With `cache`, decoded pictures (at the
    size that is cropped) and sounds stay in memory.
    Raises InputError for an item without frame or sound, or a file that can't be read.
    """

    def __init__(self, manifest: Manifest, config: Config, *, train: bool, seed: int = 0, cache: bool = False) -> None:
        if manifest.classes != config.classes:
            raise InputError(
                f"{manifest.path} has the classes {', '.join(manifest.classes)}, "
                f"the model has {', '.join(config.classes)}: they must be the same, in the same order"
            )
        for item in manifest.items:
            if item.frame is None or item.audio is None:
                raise InputError(f"item {item.id!r} of {manifest.path} has no frame or no audio: training needs both")
        self.items = manifest.items
        self.config = config
        self.train = train
        self.seed = seed
        height, width = config.image_size
        self.read_size = (round(height * CROP_MARGIN), round(width * CROP_MARGIN)) if train else (height, width)
        self.index_of = {name: index for index, name in enumerate(config.classes)}
        self.cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.int16]]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        item = self.items[index]
        image, sound = self._read(index)
        sounding = {self.index_of[source.label] for source in item.sources if source.sounding}
        visible = {self.index_of[source.label] for source in item.sources if source.on_screen}
        order = sorted(sounding & visible)
        if self.train:
            rng = np.random.default_rng((self.seed, epoch, index))
            image = _augment_image(image, self.config.image_size, rng)
            sound = _cut(sound, self.config.window_samples, rng)
            order = [order[k] for k in rng.permutation(len(order))]
        else:
            sound = fit_window(sound, self.config.window_samples)
        return Sample(
            image=image,
            waveform=sound,
            sounding=tuple(sorted(sounding)),
            visible=tuple(sorted(visible)),
            order=tuple(order),
        )

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self.cache is None:
            return self._frame(index), read_sound(self.items[index], self.config.sample_rate)
        if index not in self.cache:
            sound = read_sound(self.items[index], self.config.sample_rate)
            quantised = np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)
            self.cache[index] = (self._frame(index), quantised)
        image, quantised = self.cache[index]
        return image, quantised.astype(np.float32) / np.float32(32768)

    def _frame(self, index: int) -> NDArray[np.uint8]:
        frame = self.items[index].frame
        assert frame is not None
        return read_frame(frame, self.read_size)


def read_sound(item: Item, sample_rate: int) -> NDArray[np.float32]:
    """The item's sound, mono at `sample_rate`: [T] float32."""
    assert item.audio is not None
    samples, rate = read_wav(item.audio)
    return resample(samples, rate, sample_rate)


def _augment_image(image: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    zoom = rng.uniform(1.0, CROP_MARGIN, size=2)
    height, width = (min(side, round(target * z)) for side, target, z in zip(image.shape, size, zoom, strict=False))
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    crop = image[top : top + height, left : left + width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = resize(np.ascontiguousarray(crop), size)
    gain = rng.uniform(1 - LIGHT, 1 + LIGHT)
    offset = 255 * rng.uniform(-LIGHT / 2, LIGHT / 2)
    table = np.clip(np.arange(256) * gain + offset, 0, 255).astype(np.uint8)
    return table[crop]


def _cut(sound: NDArray[np.float32], length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random window with a random gain; sometimes up to half of it is silence, as at a stream's edges."""
    if len(sound) > length:
        start = int(rng.integers(len(sound) - length + 1))
        sound = sound[start : start + length]
    window = fit_window(sound, length) * np.float32(10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20))
    if rng.random() < PADDING_CHANCE:
        count = int(rng.integers(length // 2))
        if rng.random() < 0.5:
            window[:count] = 0
        else:
            window[length - count :] = 0
    return window


class SeededBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) whose content depends on the seed and the position alone.

    `position()` is the number of batches that training has done: after a restart the next one follows. Of `world`
    processes, each takes its own `batch_size` of a joint batch.
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
    ) -> None:
        if length < batch_size * world:
            raise InputError(f"{length} items don't fill a batch of {batch_size * world}: choose a smaller batch_size")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.length // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, done = divmod(self.position(), len(self))
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        for batch in range(done, len(self)):
            start = (batch * self.world + self.rank) * self.batch_size
            yield [(epoch, int(index)) for index in order[start : start + self.batch_size]]


def collate(samples: Sequence[Sample], num_classes: int) -> Batch:
    """Stack samples; sources are padded to the largest N (at least one)."""
    count = len(samples)
    most = max(1, *(len(sample.order) for sample in samples))
    sounding = torch.zeros(count, num_classes)
    visible = torch.zeros(count, num_classes)
    order = torch.zeros(count, most, dtype=torch.int64)
    mask = torch.zeros(count, most, dtype=torch.bool)
    for row, sample in enumerate(samples):
        sounding[row, list(sample.sounding)] = 1.0
        visible[row, list(sample.visible)] = 1.0
        order[row, : len(sample.order)] = torch.tensor(sample.order, dtype=torch.int64)
        mask[row, : len(sample.order)] = True
    return Batch(
        image=torch.from_numpy(np.stack([sample.image for sample in samples])),
        waveform=torch.from_numpy(np.stack([sample.waveform for sample in samples])),
        labels=Labels(sounding=sounding, visible=visible, order=order, mask=mask),
    )


class Collate:
    """`collate` with the class count bound, so that loader workers can be spawned."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, self.num_classes)


def build_loader(dataset: AudioVisualDataset, batches: Iterable[list[Key]], workers: int = 0) -> DataLoader[Sample]:
    """A loader of `Batch` over the given batches of keys."""
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=Collate(dataset.config.num_classes),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def ordered_batches(length: int, batch_size: int) -> list[list[Key]]:
    """The manifest's own order, for validation."""
    return [[(0, i) for i in range(at, min(at + batch_size, length))] for at in range(0, length, batch_size)]
