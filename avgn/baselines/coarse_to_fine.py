"""Qian et al. 2020: class heads and correspondence first, then features of each class in both modalities contrasted.

    CAM_c(p) = w_c . u_p + b_c      l_c = mean_p CAM_c(p)
    f_c = proj( sum_p r_c(p) u_p / sum_p r_c(p) ), of length one, with r = relu(CAM)
    stage 1: L = matching + BCE(l^a, y^a) + BCE(l^v, y^v)
    stage 2: d = |f^a_bc - f^v_me|, L + mean of d^2 where c = e, + mean of relu(margin - d)^2 elsewhere
    map_c(p) = sigmoid(CAM_c(p)) (1 + cos(f^a_c, proj(u_p))) / 2

Legend: B batch, C classes, P cells, D width, T sources of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import (
    as_maps,
    audio_cells,
    check_positive,
    check_share,
    global_batch,
    make_losses,
    matching_loss,
    mean_where,
)
from avgn.config import Config
from avgn.losses import gather_rows, presence_loss
from avgn.model import LocalizerModel
from avgn.training.hooks import TrainingHooks
from avgn.types import AudioSources, ImageCells, Labels, Losses

TINY = 1e-4


@dataclass(frozen=True, kw_only=True)
class CoarseToFineOptions:
    """`second_stage` is the share of the steps at which the contrast of categories begins; `margin` and weight `fine`
    are the contrast's.
    """

    second_stage: float = 0.5
    margin: float = 1.0
    fine: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "margin", "fine")
        check_share(self, "second_stage")


class ClassActivation(nn.Module):
    """Class activation maps of cells, and a feature of each class from them."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(dim, classes)
        self.project = nn.Linear(dim, dim)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """cells [B,P,D] -> class features [B,C,D] of length one and logits [B,C]."""
        activation = self.classify(cells)
        weights = torch.relu(activation)
        weights = weights / (weights.sum(dim=1, keepdim=True) + TINY)
        return self.shared(torch.matmul(weights.transpose(1, 2), cells)), activation.mean(dim=1)

    def shared(self, features: Tensor) -> Tensor:
        """Features [B,..,D] in the space that both modalities share."""
        return nn.functional.normalize(self.project(features), dim=2)


class CoarseToFine(LocalizerModel):
    """One map a class; the gate [B,C,D] of an image holds its class features, its cells are unprojected."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: CoarseToFineOptions = config.system_options
        self.audio_classes = ClassActivation(config.dim, config.num_classes)
        self.visual_classes = ClassActivation(config.dim, config.num_classes)
        self.scale = nn.Parameter(torch.tensor([5.0]))
        self.bias = nn.Parameter(torch.zeros(1))

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> a feature and a logit of each class."""
        embedding, logit = self.audio_classes(audio_cells(self.audio_encoder, spectrogram))
        return AudioSources(embedding=embedding, logit=logit)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""
        features = self.visual_encoder.project(self.visual_encoder.backbone(pixels))
        cells = features.flatten(2).transpose(1, 2)
        gate, logit = self.visual_classes(cells)
        return ImageCells(cells=cells, gate=gate, logit=logit, grid=(features.shape[2], features.shape[3]))

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,C,h,w]."""
        seen = self.visual_classes.classify(image.cells).transpose(1, 2)
        cosine = torch.matmul(audio.embedding, self.visual_classes.shared(image.cells).transpose(1, 2))
        return as_maps(seen.sigmoid() * (0.5 + 0.5 * cosine), image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Class heads and correspondence; in the second stage the contrast of categories too."""
        assert audio.logit is not None and image.logit is not None and image.gate is not None
        heard = presence_loss(audio.logit, labels.sounding, self.config)
        seen = presence_loss(image.logit, labels.visible, self.config)
        heard_whole, seen_whole = _whole(audio.embedding, audio.logit), _whole(image.gate, image.logit)
        if gather:
            heard_whole, seen_whole = gather_rows(heard_whole), gather_rows(seen_whole)
        loss = matching_loss(self.scale * (heard_whole @ seen_whole.T) + self.bias)
        if stage > 0:
            audio, image, labels = global_batch(audio, image, labels, gather)
            assert image.gate is not None
            chosen = labels.sounding.bool() & labels.visible.bool()
            category = chosen.nonzero()[:, 1]
            loss = loss + self.options.fine * category_loss(
                audio.embedding[chosen], image.gate[chosen], category, self.options.margin
            )
        return make_losses(loss, audio=heard, visual=seen)


class CoarseToFineTraining(TrainingHooks):
    """The second stage begins at its share of the steps."""

    def __init__(self, model: CoarseToFine, visual_weights: str = "random") -> None:
        super().__init__(model, visual_weights)
        self.stage_shares = (model.options.second_stage,)


def category_loss(heard: Tensor, seen: Tensor, category: Tensor, margin: float) -> Tensor:
    """Contrast of features [T,D] of length one in both modalities by their categories [T]."""
    square = (2 - 2 * heard @ seen.T).clamp_min(1e-8)
    agree = category[:, None] == category[None, :]
    apart = torch.relu(margin - square.sqrt()).square()
    return mean_where(square, agree) + mean_where(apart, ~agree)


def _whole(features: Tensor, logit: Tensor) -> Tensor:
    """Return what stands for the whole sample [B,D]: its class features, weighed by how present the classes are."""
    return nn.functional.normalize((logit.sigmoid()[:, :, None] * features).sum(dim=1), dim=1)
