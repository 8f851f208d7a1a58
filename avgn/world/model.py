"""The localizer whose tokens are classifier rows: a cell is assigned to a class by its logit (paper eq. 6).

With W_q and W_k the identity and a classifier's rows as tokens, the assignment A of the paper is the classifier's own
posterior of every cell. The maps are its logits, plain; a class of several rows takes their log-sum-exp. What is heard
is the log-odds of the class's AudioSet names; the sources that the audio half hands over are these numbers alone.

Legend: B batch, F frames, N patches, H x W pixels, P = h * w cells, K classes, R rows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from avgn.config import Config
from avgn.encoders.blazeface import BlazeFace
from avgn.encoders.efficientnet_lite import HEAD, EfficientNetLite0
from avgn.encoders.yamnet import HOP, WIDTH, LogMel, YAMNet, cut_patches
from avgn.losses import compute_losses
from avgn.maxima import largest
from avgn.model import LocalizerModel
from avgn.runtime.bundle_schema import Joint
from avgn.types import AudioSources, ImageCells, Labels, Losses
from avgn.world.classes import NOISES, find_classes
from avgn.world.losses import joint_contrast, token_cosines
from avgn.world.settings import (
    BLUR,
    BLUR_REACH,
    LENGTH_WEIGHT,
    LOUDEST,
    NOISE_LEAD,
    NOISE_WEIGHT,
    PATCH_HOP,
    SEEN_OFFSET,
)

# of a cell's exponentials, a class's share at least: its logarithm stays finite
LEAST_SUM = 1e-30
# log-odds of a face stand beside logits of classes: face logits from about -5 to 5, logits of ImageNet from 0 to 20
FACE_SCALE, FACE_OFFSET = 2.5, 6.5
# what a cell's logit says about a class's presence, beside what its sound says
VISUAL_WEIGHT = 0.2
# the joint decision: log-odds heard + weight * log-odds seen; the same threshold for all classes
JOINT_WEIGHT, JOINT_THRESHOLD, JOINT_MARGIN, JOINT_APART, JOINT_FLOOR = 0.3, 0.5, 5.0, 0.11, -6.0
# one step of log-odds is worth three quarters of one
JOINT_SCALE = 0.75
# what is in view peaks above this (98 of 100 things), and 95 of 100 pictures without a face below it: a voice is then
# off-screen
JOINT_SEEN_FLOOR = -2.5
# BlazeFace sees a picture of half the size
FACE_SHRINK = 2


class PatchEncoder(nn.Module):
    """Encodes patches [B,1,64,96] as features [B,1024]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = YAMNet()

    def forward(self, patches: Tensor) -> Tensor:
        return self.backbone(patches).mean(dim=(2, 3))


class CellEncoder(nn.Module):
    """Encodes normalised pictures [B,3,H,W] as cells [B,P,1280] from 0 to 6, with the grid (h, w)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(stride)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        features = self.backbone(image)
        grid = (features.shape[2], features.shape[3])
        return features.flatten(2).transpose(1, 2), grid


class AudioTokens(nn.Module):
    """Turns features [...,1024] into log-odds [...,K]: the largest of a class's rows, less where noise is ahead."""

    which: Tensor

    def __init__(self, counts: list[int]) -> None:
        """`counts` [K]: rows of each class, one class after the other."""
        super().__init__()
        self.rows = nn.Linear(WIDTH, sum(counts))
        self.noises = nn.Linear(WIDTH, len(NOISES))
        widest, starts = max(counts), [sum(counts[:k]) for k in range(len(counts))]
        # classes of fewer rows repeat their last one
        which = [
            [start + min(n, count - 1) for n in range(widest)] for start, count in zip(starts, counts, strict=True)
        ]
        self.register_buffer("which", torch.tensor(which).flatten(), persistent=False)
        self.widest = widest

    def forward(self, features: Tensor) -> Tensor:
        each = self.rows(features).index_select(-1, self.which)
        heard = largest(each.unflatten(-1, (-1, self.widest)), -1)
        noise = largest(self.noises(features), -1, keepdim=True)
        return heard - NOISE_WEIGHT * nn.functional.relu(noise + NOISE_LEAD - heard)


class CellTokens(nn.Module):
    """Turns cells [B,P,1280] and log-odds of faces [B,P,1] into logits [B,P,K].

    The log-sum-exp over each class's rows, and a little more where a cell sees much.
    """

    member: Tensor
    faces: Tensor

    def __init__(self, counts: list[int]) -> None:
        """`counts` [K]: rows of each class, one class after the other; 0 for those that faces show."""
        super().__init__()
        self.rows = nn.Linear(HEAD, max(1, sum(counts)))
        member = torch.zeros(max(1, sum(counts)), len(counts))
        at = 0
        for k, count in enumerate(counts):
            member[at : at + count, k] = 1.0
            at += count
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("faces", torch.tensor([float(count == 0) for count in counts]), persistent=False)

    def forward(self, cells: Tensor, faces: Tensor) -> Tensor:
        logits = self.rows(cells).float()
        # the classes share the largest logit of a cell: their own lie within what float32 exponentials hold
        most = largest(logits, 2, keepdim=True)
        summed = torch.matmul(torch.exp(logits - most), self.member)
        wide = cells.float()
        # cells of zeros exist, and a root has no derivative there
        length = torch.sqrt((wide * wide).sum(dim=2, keepdim=True) + 1e-12)
        # not a small number added: the exporter takes that for zero, and a class too far behind is -inf then. Nor a
        # clip, which 8 bits would take for an activation
        least = torch.full((), LEAST_SUM, device=summed.device)
        classes = torch.log(torch.maximum(summed, least)) + most + LENGTH_WEIGHT * torch.log1p(length)
        return torch.where(self.faces > 0, faces, classes)


class Blur(nn.Module):
    """Blurs maps [B,K,h,w] of any size with a Gaussian; the cells of the edge are repeated outside."""

    kernel: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        offsets = torch.arange(-BLUR_REACH, BLUR_REACH + 1, dtype=torch.float64)
        line = torch.exp(-0.5 * (offsets / sigma) ** 2)
        line = line / line.sum()
        self.register_buffer("kernel", torch.outer(line, line).float()[None, None], persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        planes = maps.flatten(0, 1)[:, None]
        padded = nn.functional.pad(planes, (BLUR_REACH,) * 4, mode="replicate")
        return nn.functional.conv2d(padded, self.kernel)[:, 0].unflatten(0, (-1, maps.shape[1]))


class WorldLocalizer(LocalizerModel):
    """Classifier rows as tokens; sources [B,K,1] are log-odds of what is heard, cells [B,P,K] logits of what is seen.

    map_k = weight * logit_k + log-odds_k: of two things that are seen, the one that sounds is hotter.
    """

    loudest_patches = LOUDEST

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        found = find_classes(config.classes)
        self.audio_tokens = AudioTokens([len(each.audioset) for each in found])
        self.cell_tokens = CellTokens([len(each.imagenet) for each in found])
        self.face = BlazeFace()
        self.blur = Blur(BLUR * 32 / config.visual_stride)
        self.joint = Joint(
            visual_weight=JOINT_WEIGHT,
            thresholds=(JOINT_THRESHOLD,) * config.num_classes,
            margin=JOINT_MARGIN,
            apart=JOINT_APART,
            floor=JOINT_FLOOR,
            scale=JOINT_SCALE,
            seen_floor=JOINT_SEEN_FLOOR,
        )

    def build_encoders(self) -> tuple[LogMel, PatchEncoder, CellEncoder]:
        """Build the front-end, the audio encoder and the visual encoder."""
        return LogMel(), PatchEncoder(), CellEncoder(self.config.visual_stride)

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """Encode a log-mel spectrogram [B,1,64,F]: of each class, the mean of its loudest patches."""
        patches = cut_patches(spectrogram, PATCH_HOP // HOP)
        logit = self.audio_tokens(self.audio_encoder(patches.flatten(0, 1))).unflatten(0, patches.shape[:2])
        if patches.shape[1] > 1:
            loudest = min(LOUDEST, patches.shape[1])
            logit = logit.topk(loudest, dim=1).values.mean(dim=1)
        else:
            logit = logit[:, 0]
        return AudioSources(embedding=logit[:, :, None], logit=logit)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """Encode a normalised image [B,3,H,W]: the logits of its cells after the blur."""
        cells, (height, width) = self.visual_encoder(pixels)
        logits = self.cell_tokens(cells, self._faces(pixels))
        sharp = logits.transpose(1, 2).unflatten(2, (height, width))
        # a face is no larger than a few cells, and its score is sharp already
        maps = torch.where(self.cell_tokens.faces[:, None, None] > 0, sharp, self.blur(sharp))
        seen = maps.flatten(2)
        logit = largest(seen, 2) - SEEN_OFFSET
        return ImageCells(cells=seen.transpose(1, 2), gate=None, logit=logit, grid=(height, width))

    def _faces(self, pixels: Tensor) -> Tensor:
        """Return [B,P,1]: the largest score of a face in each cell, on the scale of the classes' logits."""
        fine, coarse = self.face(nn.functional.avg_pool2d(pixels, FACE_SHRINK))
        # cells of 16 pixels
        both = torch.maximum(fine, nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        if self.config.visual_stride == 32:
            both = nn.functional.max_pool2d(both, 2)
        return (FACE_SCALE * both + FACE_OFFSET).flatten(2).transpose(1, 2)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,K,h,w]: what is seen in a cell and what is heard, as one log-odds."""
        maps = VISUAL_WEIGHT * image.cells.transpose(1, 2) + audio.embedding
        return maps.reshape(maps.shape[0], maps.shape[1], *image.grid)

    def image_backbones(self) -> list[nn.Module]:
        """Return the backbones that see the normalised picture itself."""
        return [self.visual_encoder.backbone, self.face]

    def published_parts(self) -> list[nn.Module]:
        """List what rests while tokens are trained: encoders, and what noise sounds like, which no label names."""
        return [*super().published_parts(), self.audio_tokens.noises]

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Compute L_loc + L_group of log-odds (avgn/world/losses.py)."""
        localize = partial(joint_contrast, visual_weight=VISUAL_WEIGHT)
        return compute_losses(audio, image, labels, self.token_logits(), self.config, gather=gather, localize=localize)

    def token_logits(self) -> Tensor:
        """Compute class logits [K,K] of the tokens: their cosines, divided by the temperature."""
        found = find_classes(self.config.classes)
        counts = [len(each.audioset) for each in found], [len(each.imagenet) for each in found]
        cosines = token_cosines(self.audio_tokens.rows.weight, self.cell_tokens.rows.weight, counts)
        return cosines / self.config.temperature
