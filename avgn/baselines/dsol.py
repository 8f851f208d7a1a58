"""Hu et al. 2020: single sources teach a dictionary of objects, by which mixtures are taken apart.

    l(p) = sigmoid(w <v_p, a> + b)      o = sum_p r(p) v_p, of length one, with r = relu(norm(l) - threshold)
    stage 1: L = matching by max_p l(p); then, in turns with it, clusters d_k of all o, whose nearest is a sample's
        pseudo-label: L = matching + CE(softmax_k <o, d_k> / tau) + CE(softmax_k head(a))
    stage 2: m_k(p) = softmax_k <v_p, d_k> / tau, s_k(p) = m_k(p) l(p)
        L = matching + KL(p^v || p^a), with p^v_k ~ sum_p s_k(p), and p^a of the head
    map_k(p) = s_k(p)

Legend: B batch, C classes (and clusters), P cells, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.clusters import match_clusters, spherical_kmeans
from avgn.baselines.parts import (
    all_pairs,
    as_maps,
    check_positive,
    check_share,
    global_batch,
    make_losses,
    matching_loss,
    min_max,
)
from avgn.config import Config
from avgn.maxima import largest
from avgn.model import LocalizerModel
from avgn.training.hooks import TrainingHooks
from avgn.types import AudioSources, Batch, ImageCells, Labels, Losses

log = logging.getLogger(__name__)

LEAST = 1e-6


@dataclass(frozen=True, kw_only=True)
class DiscriminativeSoundingObjectsOptions:
    """`first_clusters` and `second_stage` are the shares of the steps at which clustering and mixtures begin;
    `threshold` of the mask of objects; `temperature` of the dictionary; `weight` of the classification and of the match
    of distributions.
    """

    first_clusters: float = 0.2
    second_stage: float = 0.5
    threshold: float = 0.5
    temperature: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "temperature", "weight")
        for name in ("first_clusters", "second_stage", "threshold"):
            check_share(self, name)
        if not self.first_clusters <= self.second_stage:
            raise ValueError(
                f"option first_clusters must not come after second_stage, got {self.first_clusters} and "
                f"{self.second_stage}: 0.2 and 0.5 are the defaults"
            )


class DiscriminativeSoundingObjects(LocalizerModel):
    """One map a cluster of objects; all classes hear the same embedding. Validation labels name the clusters."""

    dictionary: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: DiscriminativeSoundingObjectsOptions = config.system_options
        self.scale = nn.Parameter(torch.tensor([5.0]))
        self.bias = nn.Parameter(torch.zeros(1))
        self.head = nn.Linear(config.dim, config.num_classes)
        self.register_buffer("dictionary", torch.zeros(config.num_classes, config.dim))

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> the embedding, once a class, and the logit of each class's share."""
        features = self.audio_encoder(spectrogram)
        embedding = features[:, None].expand(-1, self.config.num_classes, -1)
        return AudioSources(embedding=embedding, logit=logit_of(torch.softmax(self.head(features), dim=1)))

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells; the logit of a class is that of its best cell."""
        cells, grid = self.visual_encoder(pixels)
        return ImageCells(cells=cells, gate=None, logit=logit_of(largest(self.objects(cells), 2)), grid=grid)

    def objects(self, cells: Tensor) -> Tensor:
        """m [B,C,P] of cells [B,P,D]."""
        return torch.softmax(torch.matmul(cells, self.dictionary.T) / self.options.temperature, dim=2).transpose(1, 2)

    def sounding(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """l [B,C,P]."""
        return torch.sigmoid(self.scale * torch.matmul(audio.embedding, image.cells.transpose(1, 2)) + self.bias)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,C,h,w]."""
        return as_maps(self.objects(image.cells) * self.sounding(audio, image), image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Matching, with pseudo-labels in the first stage and the match of distributions in the second."""
        assert audio.logit is not None
        heard = nn.functional.logsigmoid(audio.logit)
        all_audio, all_images, _ = global_batch(audio, image, labels, gather)
        matching = matching_loss((self.scale * all_pairs(all_audio, all_images) + self.bias).amax(dim=2))
        if stage == 0:
            return make_losses(matching)
        if stage == 2:
            seen = torch.flatten(self.localize(audio, image), 2).sum(dim=2)
            apart = distribution_loss(seen, heard.detach())
            return make_losses(matching, visual=self.options.weight * apart)
        products = self.object_features(audio, image) @ self.dictionary.T
        pseudo = products.detach().argmax(dim=1)
        by_eye = nn.functional.cross_entropy(products / self.options.temperature, pseudo)
        by_ear = nn.functional.nll_loss(heard, pseudo)
        return make_losses(matching, audio=self.options.weight * by_ear, visual=self.options.weight * by_eye)

    def object_features(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """o [B,D]: the cells that sound, together."""
        first = AudioSources(embedding=audio.embedding[:, :1], logit=None)
        weights = torch.relu(min_max(self.sounding(first, image).detach()) - self.options.threshold)
        return nn.functional.normalize(torch.matmul(weights, image.cells)[:, 0], dim=1)

    def cluster(self, batches: Iterable[Batch]) -> None:
        """Make the dictionary of the objects in these scenes."""
        features = [self.object_features(*self(batch.waveform, batch.image)) for batch in batches]
        if not features:
            return
        start = self.dictionary if self.dictionary.any() else None
        self.dictionary.copy_(spherical_kmeans(torch.cat(features), self.config.num_classes, start))

    def name_clusters(self, batches: Iterable[Batch]) -> None:
        """Give the clusters the order of the classes that they go with in these scenes."""
        shares, present = [], []
        for batch in batches:
            audio = self.encode_audio(batch.waveform)
            assert audio.logit is not None
            shares.append(audio.logit.sigmoid())
            present.append(batch.labels.sounding)
        if not shares:
            log.warning("no scenes with labels: the clusters of dsol stay unnamed")
            return
        order = match_clusters(torch.cat(shares), torch.cat(present))
        self.dictionary.copy_(self.dictionary[order].clone())
        self.head.weight.copy_(self.head.weight[order].clone())
        self.head.bias.copy_(self.head.bias[order].clone())


class DsolTraining(TrainingHooks):
    """Clusters objects while the first stage lasts, once matching has been learnt, and names the clusters at last."""

    model: DiscriminativeSoundingObjects

    def __init__(self, model: DiscriminativeSoundingObjects, visual_weights: str = "random") -> None:
        super().__init__(model, visual_weights)
        self.stage_shares = (model.options.first_clusters, model.options.second_stage)

    def enter_stage(self, stage: int, batches: Iterable[Batch]) -> None:
        """Find the first clusters when matching has been learnt."""
        if stage == 1:
            self.model.cluster(batches)

    def begin_epoch(self, batches: Iterable[Batch]) -> None:
        """Cluster anew while the first stage lasts."""
        if self.stage == 1:
            self.model.cluster(batches)

    def end(self, batches: Iterable[Batch]) -> None:
        """Name the clusters."""
        self.model.name_clusters(batches)


def logit_of(share: Tensor) -> Tensor:
    """Return the logit of a share in 0..1, finite."""
    share = share.clamp(LEAST, 1 - LEAST)
    return torch.log(share) - torch.log(1 - share)


def distribution_loss(seen: Tensor, heard: Tensor) -> Tensor:
    """Mean KL(p^v || p^a) of the amounts [B,C] that are seen, and log p^a [B,C]."""
    seen = seen / seen.sum(dim=1, keepdim=True).clamp_min(LEAST)
    return (seen * (seen.clamp_min(LEAST).log() - heard)).sum(dim=1).mean()
