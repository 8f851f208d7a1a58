"""Add a system of your own and train it like the others: python examples/add_a_system.py MANIFEST OUT"""

import sys
from dataclasses import dataclass

import torch

from avgn.baselines.parts import SharedMap, as_maps, make_losses
from avgn.config import preset
from avgn.runtime.manifest import read_manifest
from avgn.systems import System, register
from avgn.training import TrainConfig
from avgn.training.fit import train


@dataclass(frozen=True, kw_only=True)
class NearestCellOptions:
    """`temperature` of the contrast between the pairs of a batch."""

    temperature: float = 0.07


class NearestCell(SharedMap):
    """One map a picture: the cosine of the sound and each cell; a pair is as close as its nearest cell."""

    def localize(self, audio, image):
        return as_maps(torch.matmul(audio.embedding, image.cells.transpose(1, 2)), image.grid)

    def losses(self, audio, image, labels, *, gather=True, stage=0):
        close = torch.einsum("id,jpd->ijp", audio.embedding[:, 0], image.cells).amax(dim=2)
        own = torch.arange(len(close), device=close.device)
        return make_losses(torch.nn.functional.cross_entropy(close / self.config.system_options.temperature, own))


register(System(name="nearest-cell", paper="an example", year=2026, location=f"{__name__}:NearestCell", maps="one"))
manifest = read_manifest(sys.argv[1])
config = preset("avgn-tiny", classes=manifest.classes, system="nearest-cell")
print(train(config, manifest, None, sys.argv[2], TrainConfig(steps=2, batch_size=2, visual_weights="random")))
