"""Reads the scenes of a manifest as training samples, seeded by item and epoch.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from avgn.config import Config
from avgn.data.augment import NONE, Augmentation
from avgn.data.cache import WaveformCache, to_float32, to_int16
from avgn.data.mixed import MixedScenes, read_size
from avgn.data.mixing import Mixing, Scene, mix
from avgn.data.sample import Sample
from avgn.data.sampling import Key
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest
from avgn.runtime.reading import read_clip, read_frame, read_part, read_wav

# windows are drawn from at most this many seconds of a sound: of a longer one a random part is read
MOST_WAVEFORM_SECONDS = 60.0


class AudioVisualDataset(MixedScenes[int], Dataset[Sample]):
    """Reads the scenes of a manifest; keys are (epoch, item) or (epoch, item, pictures): see `Key`.

    In training, pictures and sounds are changed at random (`augmentation`) and scenes are mixed (`mixing`); otherwise
    the whole frame is squashed and the clip's centre taken. With `cache`, decoded pictures (at the size that is
    cropped) and sounds stay in memory; `audio_cache` is a folder of decoded sounds for all processes and runs.
    Raises InputError for an item without frame or sound, or a file that can't be read.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: Config,
        *,
        train: bool,
        seed: int = 0,
        cache: bool = False,
        audio_cache: Path | None = None,
        augmentation: Augmentation | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__(config, (augmentation or Augmentation()) if train else NONE, mixing or Mixing())
        if manifest.classes != config.classes:
            raise InputError(
                f"{manifest.path} has the classes {', '.join(manifest.classes)}, "
                f"the model has {', '.join(config.classes)}: they must be the same, in the same order"
            )
        for item in manifest.items:
            if item.frame is None or item.audio is None:
                raise InputError(f"item {item.id!r} of {manifest.path} has no frame or no audio: training needs both")
        self.items = manifest.items
        self.train = train
        self.seed = seed
        self.read_size = read_size(config, self.augmentation)
        index_of = {name: index for index, name in enumerate(config.classes)}
        self._labels = [classes_of(item, index_of) for item in self.items]
        self.cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.int16]]] | None = {} if cache else None
        self.waveforms = None if audio_cache is None else WaveformCache(audio_cache, config.sample_rate)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key | tuple[int, int]) -> Sample:
        key = Key(*key)
        if self.train:
            return self.sample(key.item, key.scenes, np.random.default_rng((self.seed, key.epoch, key.item)))
        sounding, visible = self.labels(key.item)
        image, waveform = self._still(key.item)
        return mix([Scene(image=image, waveform=waveform, sounding=sounding, visible=visible)], [True], None, None)

    def labels(self, handle: int) -> tuple[frozenset[int], frozenset[int]]:
        """Return the classes of an item that sound and those that are visible."""
        return self._labels[handle]

    def draw(self, rng: np.random.Generator) -> int:
        """Draw any item."""
        return int(rng.integers(len(self.items)))

    def read(self, handle: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read an item's picture and sound, from memory if they are kept there."""
        image, kept = self._kept(handle)
        path = self._audio(handle)
        if kept is not None:
            return image, to_float32(kept)
        return image, resample(*read_wav(path), self.config.sample_rate)

    def read_part(self, handle: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read an item's picture and at most MOST_WAVEFORM_SECONDS of its waveform."""
        image, kept = self._kept(handle)
        if kept is None:
            return image, resample(
                *read_part(self._audio(handle), MOST_WAVEFORM_SECONDS, rng.random), self.config.sample_rate
            )
        length = round(MOST_WAVEFORM_SECONDS * self.config.sample_rate)
        if len(kept) > length:
            first = round(rng.random() * (len(kept) - length))
            kept = kept[first : first + length]
        return image, to_float32(kept)

    def _still(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read an item's picture and the middle of its sound: [T] of the model's window."""
        image, kept = self._kept(index)
        if kept is None:
            return image, read_clip(self._audio(index), self.config.sample_rate, self.config.window_samples)
        return image, to_float32(fit_window(kept, self.config.window_samples))

    def _kept(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int16] | None]:
        """Read an item's picture, and its sound from the cache of decoded sounds if there is one."""
        if self.cache is None:
            return self._frame(index), None if self.waveforms is None else self._decoded(index)
        if index not in self.cache:
            self.cache[index] = (self._frame(index), self._decoded(index))
        return self.cache[index]

    def _decoded(self, index: int) -> NDArray[np.int16]:
        path = self._audio(index)
        kept = None if self.waveforms is None else self.waveforms.get(path)
        if kept is None:
            kept = to_int16(resample(*read_wav(path), self.config.sample_rate))
            if self.waveforms is not None:
                self.waveforms.put(path, kept)
        return kept

    def _audio(self, index: int) -> Path:
        path = self.items[index].audio
        assert path is not None
        return path

    def _frame(self, index: int) -> NDArray[np.uint8]:
        frame = self.items[index].frame
        assert frame is not None
        return read_frame(frame, self.read_size)


def read_waveform(item: Item, sample_rate: int) -> NDArray[np.float32]:
    """Read the item's sound, mono at `sample_rate`: [T] float32."""
    assert item.audio is not None
    samples, rate = read_wav(item.audio)
    return resample(samples, rate, sample_rate)


def classes_of(item: Item, index_of: dict[str, int]) -> tuple[frozenset[int], frozenset[int]]:
    """Return the classes of an item that sound and those that are visible."""
    return (
        frozenset(index_of[source.label] for source in item.sources if source.sounding),
        frozenset(index_of[source.label] for source in item.sources if source.on_screen),
    )
