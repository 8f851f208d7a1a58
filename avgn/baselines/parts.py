"""What several systems are made of.

Legend: B sounds, M images, P cells of an image, Q cells of a spectrogram, K maps, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avgn.encoders import AudioEncoder
from avgn.losses import gather_halves
from avgn.model import LocalizerModel
from avgn.types import AudioSources, ImageCells, Labels, Losses


class SharedMap(LocalizerModel):
    """One embedding of the sound, one of each cell, both of length one; the map is their cosine."""

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> AudioSources of K = 1."""
        return AudioSources(embedding=self.audio_encoder(spectrogram)[:, None], logit=None)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""
        cells, grid = self.visual_encoder(pixels)
        return ImageCells(cells=cells, gate=None, logit=None, grid=grid)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,1,h,w] of cosines."""
        return as_maps(torch.matmul(audio.embedding, image.cells.transpose(1, 2)), image.grid)


def as_maps(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Lay the cells of [B,K,P] out as maps [B,K,h,w]."""
    return values.reshape(values.shape[0], values.shape[1], *grid)


def global_batch(
    audio: AudioSources, image: ImageCells, labels: Labels, gather: bool
) -> tuple[AudioSources, ImageCells, Labels]:
    """Return the batch of all processes, or this one's."""
    return gather_halves(audio, image, labels) if gather else (audio, image, labels)


def all_pairs(audio: AudioSources, image: ImageCells) -> Tensor:
    """<a_b, v_mp> of every sound's first embedding with the cells of every image: [B,M,P] in float32 at least."""
    kind = torch.promote_types(image.cells.dtype, torch.float32)
    return torch.einsum("bd,mpd->bmp", audio.embedding[:, 0].to(kind), image.cells.to(kind))


def matching_loss(logits: Tensor) -> Tensor:
    """Binary cross-entropy of pair logits [B,B], matched on the diagonal; both kinds weigh the same."""
    matched = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    wrong = nn.functional.softplus(torch.where(matched, -logits, logits))
    return 0.5 * (mean_where(wrong, matched) + mean_where(wrong, ~matched))


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values, 0 without any."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp_min(1)


def make_losses(localization: Tensor, *, audio: Tensor | None = None, visual: Tensor | None = None) -> Losses:
    """Return the losses of a system that has no class tokens; their sum is the total."""
    zero = localization.new_zeros(())
    audio, visual = zero if audio is None else audio, zero if visual is None else visual
    return Losses(
        total=localization + audio + visual, localization=localization, token=zero, audio=audio, visual=visual
    )


def audio_cells(encoder: AudioEncoder, spectrogram: Tensor) -> Tensor:
    """Return the features of a spectrogram's cells before any pooling, projected: [B,Q,D]."""
    return encoder.project(encoder.backbone(spectrogram).flatten(2).transpose(1, 2))


def min_max(maps: Tensor) -> Tensor:
    """Return maps [B,1,P] stretched to 0..1; a flat one becomes 0."""
    low, high = maps.amin(dim=2, keepdim=True), maps.amax(dim=2, keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-6)


def check_positive(options: object, *names: str) -> None:
    """Raise ValueError unless these numbers are above 0."""
    for name in names:
        value = getattr(options, name)
        if not value > 0:
            raise ValueError(f"option {name} must be positive, got {value}: leave it out for the default")


def check_share(options: object, name: str, *, open_end: bool = True) -> None:
    """Raise ValueError unless a number lies in 0..1, without 1 itself where the end is open."""
    value = getattr(options, name)
    if not 0 <= value <= 1 or (open_end and value == 1):
        raise ValueError(f"option {name} must lie in 0..1, got {value}: leave it out for the default")
