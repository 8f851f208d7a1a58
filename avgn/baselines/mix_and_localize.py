"""Hu, Chen & Owens 2022: N heads separate a mixture, and a random walk from the pictures over them must come home.

    sounds of N samples are summed; heads a_1 .. a_N of the mixture; sim_ij = max_p <v_ip, a_j>
    A_va = softmax_j(sim / tau)      A_av = softmax_i(sim^T / tau)      L = -mean_i log (A_va A_av)_ii

Legend: B batch, G groups, N sources, P cells, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import as_maps, check_positive, make_losses
from avgn.config import Config
from avgn.model import LocalizerModel
from avgn.training.hooks import TrainingHooks
from avgn.types import AudioSources, ImageCells, Labels, Losses


@dataclass(frozen=True, kw_only=True)
class MixAndLocalizeOptions:
    """`sources` is N."""

    sources: int = 2
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_positive(self, "temperature")
        if self.sources < 2:
            raise ValueError(f"option sources must be at least 2, got {self.sources}: a mixture has two or more")


class MixAndLocalize(LocalizerModel):
    """N embeddings of the sound; each one's map is its cosine with the cells. Which is which isn't said."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: MixAndLocalizeOptions = config.system_options
        self.separate = nn.Linear(config.dim, self.options.sources * config.dim)

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> N sources."""
        heads = self.separate(self.audio_encoder(spectrogram)).unflatten(1, (self.options.sources, -1))
        return AudioSources(embedding=nn.functional.normalize(heads, dim=2), logit=None)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""
        cells, grid = self.visual_encoder(pixels)
        return ImageCells(cells=cells, gate=None, logit=None, grid=grid)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,N,h,w]."""
        return as_maps(torch.matmul(audio.embedding, image.cells.transpose(1, 2)), image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the cycle loss; a walk stays among the samples of one mixture, so nothing is gathered."""
        cells = grouped_rows(image.cells, self.options.sources)
        # all samples of a group hear the same
        heads = grouped_rows(audio.embedding, self.options.sources)[:, 0]
        similarity = torch.einsum("gipd,gjd->gijp", cells.float(), heads.float()).amax(dim=3)
        return make_losses(cycle_loss(similarity / self.options.temperature))


class MixAndLocalizeTraining(TrainingHooks):
    """Sounds are summed in groups of N."""

    model: MixAndLocalize

    def prepare(self, waveform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Let every N samples in a row hear the sum of their sounds; those left over hear their own."""
        grouped = grouped_rows(waveform, self.model.options.sources)
        mixture = grouped.sum(dim=1, keepdim=True).expand_as(grouped).flatten(0, 1)
        return torch.cat([mixture, waveform[len(mixture) :]]), image


def grouped_rows(rows: Tensor, size: int) -> Tensor:
    """[B, ...] -> [B // size, size, ...]: the last rows that fill no group are left out."""
    return rows[: len(rows) // size * size].unflatten(0, (len(rows) // size, size))


def cycle_loss(logits: Tensor) -> Tensor:
    """-mean log of the chance to come back from logits [G,N,N] of images i and sounds j; 0 without groups."""
    there, back = torch.log_softmax(logits, dim=2), torch.log_softmax(logits, dim=1)
    # log sum_j A_va[i,j] A_av[j,i]
    home = torch.logsumexp(there + back, dim=2)
    return -home.sum() / max(1, home.numel())
