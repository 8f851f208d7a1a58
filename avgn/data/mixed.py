"""Makes one training sample of scenes, wherever these come from.

Legend: T samples, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from avgn.config import Config
from avgn.data.augment import Augmentation, augment_image, cut_waveform
from avgn.data.mixing import Mixing, Scene, mix, to_level
from avgn.data.sample import Sample

Handle = TypeVar("Handle")
# how many draws look for a scene without a common class before any scene is taken
MAX_DRAWS = 8


class MixedScenes(ABC, Generic[Handle]):
    """Draws, changes and mixes scenes that a source of them knows by handles."""

    def __init__(self, config: Config, augmentation: Augmentation, mixing: Mixing) -> None:
        self.config = config
        self.augmentation = augmentation
        self.mixing = mixing

    @abstractmethod
    def labels(self, handle: Handle) -> tuple[frozenset[int], frozenset[int]]:
        """Return the classes of a scene that sound and those that are visible."""

    @abstractmethod
    def read(self, handle: Handle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read a scene's image [H,W,3], at most `zoom` times as large as the model's, and its whole waveform [T]."""

    def read_part(self, handle: Handle, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read a scene's image and waveform; of a long one, a random part is enough."""
        return self.read(handle)

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Handle:
        """Draw any scene."""

    def sample(self, first: Handle, scenes: int, rng: np.random.Generator) -> Sample:
        """Mix so many `scenes`, of which one is `first`."""
        taken = frozenset().union(*self.labels(first))
        shown, heard = [self.scene(first, rng)], [True]
        for _ in range(scenes - 1):
            other = self._another(taken, rng)
            taken = taken.union(*self.labels(other))
            shown.append(self.scene(other, rng))
            heard.append(not rng.random() < self.mixing.silent)
        unseen = None
        if self.mixing.off_screen > 0 and rng.random() < self.mixing.off_screen:
            unseen = self.scene(self._another(taken, rng), rng)
        places = rng.permutation(len(shown))
        return mix([shown[k] for k in places], [heard[k] for k in places], unseen, rng)

    def scene(self, handle: Handle, rng: np.random.Generator) -> Scene:
        """Read a scene and change it at random."""
        image, waveform = self.read_part(handle, rng)
        sounding, visible = self.labels(handle)
        return Scene(
            image=augment_image(image, self.config.image_size, self.augmentation, rng),
            waveform=cut_waveform(
                to_level(waveform, self.mixing.mix_level), self.config.window_samples, self.augmentation, rng
            ),
            sounding=sounding,
            visible=visible,
        )

    def _another(self, taken: frozenset[int], rng: np.random.Generator) -> Handle:
        """Draw another scene, of other classes if a few draws find one."""
        for _ in range(MAX_DRAWS):
            handle = self.draw(rng)
            if not taken & frozenset().union(*self.labels(handle)):
                break
        return handle


def read_size(config: Config, augmentation: Augmentation) -> tuple[int, int]:
    """Return (height, width) at which images are read: that of the largest crop's source."""
    height, width = config.image_size
    return (round(height * augmentation.zoom), round(width * augmentation.zoom))
