"""Hu et al. 2019: the cells of both modalities are clustered softly, and the clusters of a pair must be near.

    z_pj = W_j u_p      s_pj = softmax_j(beta <z_pj, c_j>)      c_j <- sum_p s_pj z_pj      (a few times)
    all of length one
    D(a, v) = mean_k min_j |c^a_k - c^v_j|^2      L = relu(D(a_b, v_b) - D(a_b, v_m) + margin), in both directions

Legend: B batch, P cells, J centres, K audio centres, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import as_maps, audio_cells, check_positive, global_batch, make_losses, mean_where
from avgn.config import Config
from avgn.model import LocalizerModel
from avgn.types import AudioSources, ImageCells, Labels, Losses


@dataclass(frozen=True, kw_only=True)
class DeepMultimodalClusteringOptions:
    """`sources` (K) and `visual_centres` (J); `rounds` of clustering; `sharpness` is beta."""

    sources: int = 2
    visual_centres: int = 3
    rounds: int = 3
    sharpness: float = 10.0
    margin: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, "sources", "visual_centres", "rounds", "sharpness", "margin")


class SoftKMeans(nn.Module):
    """Clusters cells [B,P,D] of length one into J centres [B,J,D], each in a projection of its own."""

    def __init__(self, dim: int, centres: int, options: DeepMultimodalClusteringOptions) -> None:
        super().__init__()
        self.centres = centres
        self.rounds = options.rounds
        self.sharpness = options.sharpness
        self.project = nn.Linear(dim, centres * dim, bias=False)

    def spread(self, cells: Tensor) -> Tensor:
        """z [B,P,J,D]."""
        return nn.functional.normalize(self.project(cells).unflatten(2, (self.centres, -1)), dim=3)

    def assign(self, spread: Tensor, centres: Tensor) -> Tensor:
        """s [B,P,J] of z [B,P,J,D] and centres [B,J,D]."""
        return torch.softmax(self.sharpness * (spread * centres[:, None]).sum(dim=3), dim=2)

    def forward(self, cells: Tensor) -> Tensor:
        spread = self.spread(cells)
        centres = nn.functional.normalize(spread.mean(dim=1), dim=2)
        for _ in range(self.rounds):
            weights = self.assign(spread, centres)
            centres = nn.functional.normalize((weights[..., None] * spread).sum(dim=1), dim=2)
        return centres


class DeepMultimodalClustering(LocalizerModel):
    """K audio centres; the map of each is the assignment of the cells to the visual centre that is nearest to it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        options: DeepMultimodalClusteringOptions = config.system_options
        self.margin = options.margin
        self.audio_clusters = SoftKMeans(config.dim, options.sources, options)
        self.visual_clusters = SoftKMeans(config.dim, options.visual_centres, options)

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> the audio centres [B,K,D]."""
        cells = nn.functional.normalize(audio_cells(self.audio_encoder, spectrogram), dim=2)
        return AudioSources(embedding=self.audio_clusters(cells), logit=None)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells whose gate holds the visual centres [B,J,D]."""
        cells, grid = self.visual_encoder(pixels)
        return ImageCells(cells=cells, gate=self.visual_clusters(cells), logit=None, grid=grid)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,K,h,w]."""
        assert image.gate is not None
        shares = self.visual_clusters.assign(self.visual_clusters.spread(image.cells), image.gate)
        # of vectors of length one, the nearest has the largest product
        nearest = torch.matmul(audio.embedding, image.gate.transpose(1, 2)).argmax(dim=2)
        chosen = nearest[:, :, None].expand(-1, -1, shares.shape[1])
        return as_maps(shares.transpose(1, 2).gather(1, chosen), image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the max-margin loss over all pairs of the batch."""
        audio, image, _ = global_batch(audio, image, labels, gather)
        assert image.gate is not None
        return make_losses(margin_loss(centre_distance(audio.embedding, image.gate), self.margin))


def centre_distance(heard: Tensor, seen: Tensor) -> Tensor:
    """D [B,M] between the centres [B,K,D] of sounds and [M,J,D] of images."""
    product = torch.einsum("bkd,mjd->bmkj", heard, seen)
    return (2 - 2 * product).amin(dim=3).mean(dim=2)


def margin_loss(distance: Tensor, margin: float) -> Tensor:
    """Matched pairs, on the diagonal of [B,B], must be nearer than mismatched ones by the margin."""
    matched = distance.diagonal()
    others = ~torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    by_audio = torch.relu(matched[:, None] - distance + margin)
    by_image = torch.relu(matched[None, :] - distance + margin)
    return mean_where(by_audio, others) + mean_where(by_image, others)
