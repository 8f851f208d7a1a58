"""Mo & Morgado 2022 (a closer look): one projection says where the sound is, another whether it belongs to a cell.

    p_loc(p | i, j) = softmax_p( <v^loc_ip, a^loc_j> / tau )
    p_avc(j | i, p) = softmax_j( <v^avc_ip, a^avc_j> / tau )
    L = -mean_i log sum_p p_loc(p | i, i) p_avc(i | i, p), with one half of each pair from a moving average

Legend: B batch, P cells, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import as_maps, check_positive, check_share, global_batch, make_losses
from avgn.config import Config
from avgn.model import LocalizerModel
from avgn.training.hooks import TrainingHooks
from avgn.types import AudioSources, ImageCells, Labels, Losses


@dataclass(frozen=True, kw_only=True)
class SimultaneousLocalizationOptions:
    """`visual_dropout` and `audio_dropout` act on the features before they are projected; `momentum` of the average."""

    temperature: float = 0.03
    visual_dropout: float = 0.9
    audio_dropout: float = 0.0
    momentum: float = 0.999

    def __post_init__(self) -> None:
        check_positive(self, "temperature")
        for name in ("visual_dropout", "audio_dropout", "momentum"):
            check_share(self, name)


class SimultaneousLocalization(LocalizerModel):
    """Sources and cells hold both projections, [.., 2D]; the map is the mean of both cosines."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: SimultaneousLocalizationOptions = config.system_options
        self.audio_drop = nn.Dropout(self.options.audio_dropout)
        self.visual_drop = nn.Dropout(self.options.visual_dropout)
        self.audio_where = nn.Linear(config.dim, config.dim)
        self.audio_which = nn.Linear(config.dim, config.dim)
        self.visual_where = nn.Linear(config.dim, config.dim)
        self.visual_which = nn.Linear(config.dim, config.dim)

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> AudioSources of K = 1."""
        features = self.audio_drop(self.audio_encoder(spectrogram))[:, None]
        return AudioSources(embedding=_both(self.audio_where(features), self.audio_which(features)), logit=None)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""
        features, grid = self.visual_encoder(pixels)
        features = self.visual_drop(features)
        cells = _both(self.visual_where(features), self.visual_which(features))
        return ImageCells(cells=cells, gate=None, logit=None, grid=grid)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,1,h,w]: what the product of both softmaxes grows with."""
        return as_maps(0.5 * torch.matmul(audio.embedding, image.cells.transpose(1, 2)), image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the loss of the product of both softmaxes."""
        audio, image, _ = global_batch(audio, image, labels, gather)
        a_where, a_which = audio.embedding[:, 0].float().chunk(2, dim=1)
        v_where, v_which = image.cells.float().chunk(2, dim=2)
        where = torch.einsum("ipd,id->ip", v_where, a_where) / self.options.temperature
        which = torch.einsum("ipd,jd->ipj", v_which, a_which) / self.options.temperature
        return make_losses(product_loss(where, which))


class SlavcTraining(TrainingHooks):
    """One half of each pair comes from a moving average of the model."""

    def __init__(self, model: SimultaneousLocalization, visual_weights: str = "random") -> None:
        super().__init__(model, visual_weights)
        self.momentum = model.options.momentum


def product_loss(where: Tensor, which: Tensor) -> Tensor:
    """Return the loss of logits [B,P] of locations and [B,P,B] of sounds."""
    own = torch.log_softmax(which, dim=2).diagonal(dim1=0, dim2=2).T
    return -torch.logsumexp(torch.log_softmax(where, dim=1) + own, dim=1).mean()


def _both(where: Tensor, which: Tensor) -> Tensor:
    return torch.cat([nn.functional.normalize(where, dim=2), nn.functional.normalize(which, dim=2)], dim=2)
