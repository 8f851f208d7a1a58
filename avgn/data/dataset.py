"""The scenes of a manifest as training samples, seeded by item and epoch.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from avgn.config import Config
from avgn.data.augment import NONE, Augmentation, augment_image, cut_sound
from avgn.data.cache import SoundCache, to_float32, to_int16
from avgn.data.mixing import Mixing, Scene, mix, to_level
from avgn.data.samples import Sample
from avgn.data.sampling import Key
from avgn.reading import read_frame, read_wav
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest

# draws of a scene to mix with before one that shares a class is taken
TRIES = 8


class AudioVisualDataset(Dataset[Sample]):
    """The scenes of a manifest; keys are (epoch, index) or (epoch, index, pictures): see `Key`.

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
        self.augmentation = (augmentation or Augmentation()) if train else NONE
        self.mixing = mixing or Mixing()
        height, width = config.image_size
        self.read_size = (round(height * self.augmentation.zoom), round(width * self.augmentation.zoom))
        index_of = {name: index for index, name in enumerate(config.classes)}
        self.sounding = [_classes(item, index_of, "sounding") for item in self.items]
        self.visible = [_classes(item, index_of, "on_screen") for item in self.items]
        self.cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.int16]]] | None = {} if cache else None
        self.sounds = None if audio_cache is None else SoundCache(audio_cache, config.sample_rate)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key | tuple[int, int]) -> Sample:
        key = Key(*key)
        if not self.train:
            return mix([self._scene(key.item, None)], [True], None, None)
        rng = np.random.default_rng((self.seed, key.epoch, key.item))
        mixing = self.mixing
        taken = self.sounding[key.item] | self.visible[key.item]
        shown, heard = [self._scene(key.item, rng)], [True]
        for _ in range(key.pictures - 1):
            other = self._another(taken, rng)
            taken = taken | self.sounding[other] | self.visible[other]
            shown.append(self._scene(other, rng))
            heard.append(not rng.random() < mixing.silent)
        unseen = None
        if mixing.off_screen > 0 and rng.random() < mixing.off_screen:
            unseen = self._scene(self._another(taken, rng), rng)
        places = rng.permutation(len(shown))
        return mix([shown[k] for k in places], [heard[k] for k in places], unseen, rng)

    def _another(self, taken: frozenset[int], rng: np.random.Generator) -> int:
        """Another scene, of other classes if a few draws find one."""
        for _ in range(TRIES):
            index = int(rng.integers(len(self.items)))
            if not taken & (self.sounding[index] | self.visible[index]):
                break
        return index

    def _scene(self, index: int, rng: np.random.Generator | None) -> Scene:
        image, sound = self._read(index)
        length = self.config.window_samples
        if rng is None:
            sound = fit_window(sound, length)
        else:
            image = augment_image(image, self.config.image_size, self.augmentation, rng)
            sound = cut_sound(to_level(sound, self.mixing.level), length, self.augmentation, rng)
        return Scene(image=image, sound=sound, sounding=self.sounding[index], visible=self.visible[index])

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self.cache is None:
            return self._frame(index), self._sound(index)
        if index not in self.cache:
            self.cache[index] = (self._frame(index), to_int16(self._sound(index)))
        image, quantised = self.cache[index]
        return image, to_float32(quantised)

    def _sound(self, index: int) -> NDArray[np.float32]:
        item = self.items[index]
        if self.sounds is None:
            return read_sound(item, self.config.sample_rate)
        assert item.audio is not None
        kept = self.sounds.get(item.audio)
        if kept is None:
            kept = to_int16(read_sound(item, self.config.sample_rate))
            self.sounds.put(item.audio, kept)
        return to_float32(kept)

    def _frame(self, index: int) -> NDArray[np.uint8]:
        frame = self.items[index].frame
        assert frame is not None
        return read_frame(frame, self.read_size)


def read_sound(item: Item, sample_rate: int) -> NDArray[np.float32]:
    """The item's sound, mono at `sample_rate`: [T] float32."""
    assert item.audio is not None
    samples, rate = read_wav(item.audio)
    return resample(samples, rate, sample_rate)


def _classes(item: Item, index_of: dict[str, int], flag: str) -> frozenset[int]:
    return frozenset(index_of[source.label] for source in item.sources if getattr(source, flag))
