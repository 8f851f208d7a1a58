"""The localizer: an audio half, an image half, and the maps between them.

Legend: B batch, T samples, H x W pixels, P = h * w cells, K maps, C classes, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from avgn.config import Config
from avgn.encoders import AudioEncoder, VisualEncoder
from avgn.frontend import Spectrogram
from avgn.grouping import build_audio_grouping, build_visual_grouping
from avgn.kernels import cosine_maps
from avgn.runtime.bundle_schema import Joint, Thresholds, source_names
from avgn.transformer import build_transformer

if TYPE_CHECKING:
    from avgn.data import Batch
    from avgn.losses import Labels, Losses

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AudioSources:
    """What the audio half hears: embedding [B,K,D] and presence logit [B,K] (None without presence)."""

    embedding: Tensor
    logit: Tensor | None


@dataclass(frozen=True, kw_only=True)
class ImageCells:
    """What the image half sees: cells [B,P,D], gate [B,K,D] or None, presence logit [B,K] or None, grid (h, w)."""

    cells: Tensor
    gate: Tensor | None
    logit: Tensor | None
    grid: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Features:
    """scores [B,K,h,w] before any display scaling; audio_prob and visual_prob [B,K] (None without presence)."""

    scores: Tensor
    audio_prob: Tensor | None
    visual_prob: Tensor | None


class Localizer(Protocol):
    """The interface through which every localizer is trained, evaluated, exported and streamed (DESIGN section 2)."""

    config: Config

    def encode_audio(self, waveform: Tensor) -> AudioSources:
        """waveform [B,T] float32 -> what sounds."""

    def encode_image(self, image: Tensor) -> ImageCells:
        """image [B,H,W,3] uint8 RGB -> what is seen."""

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Maps [B,K,h,w]."""


class TwoHalves(nn.Module, ABC):
    """What every localizer has: encoders, the two halves, its own losses, and hooks for a training in stages.

    A system gives `encode_spectrogram`, `encode_pixels`, `localize` and `compute`. What only training needs is made by
    `begin_training` under the name `school`, and is no part of a checkpoint.
    """

    image_mean: Tensor
    image_std: Tensor
    # shares of all steps at which the second stage and those after it begin
    stage_shares: tuple[float, ...] = ()
    # above 0, both halves are contrasted with those of a moving average of the model
    momentum: float = 0.0
    # the map's maximum at which something is seen, for systems without presence
    map_threshold: float = 0.5
    # how both halves decide together, where they do
    joint: Joint | None = None
    # patches of a window whose evidence counts, for a model that hears in patches
    loudest_patches: int = 1
    # mean and deviation of pixels from 0 to 1, for each channel
    pixel_scale: tuple[tuple[float, ...], tuple[float, ...]] = (IMAGENET_MEAN, IMAGENET_STD)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.thresholds: Thresholds | None = None
        self.stage = 0
        self.frontend, self.audio_encoder, self.visual_encoder = self.build_encoders()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self.pixel_scale)
        self.register_buffer("image_mean", mean * 255, persistent=False)
        self.register_buffer("image_std", std * 255, persistent=False)

    def build_encoders(self) -> tuple[Any, Any, Any]:
        """The front-end, the audio encoder and the visual encoder; encoders have a `backbone`."""
        config = self.config
        return (
            Spectrogram(config),
            AudioEncoder(config.width_audio, config.dim),
            VisualEncoder(config.width_visual, config.dim, config.visual_stride),
        )

    @property
    def has_presence(self) -> bool:
        """Whether the model says which classes sound and which are visible."""
        return self.config.kind.class_aware

    @property
    def map_names(self) -> tuple[str, ...]:
        """What the K maps are called."""
        if self.has_presence:
            return self.config.classes
        count = self.config.num_maps
        return ("sound",) if count == 1 else source_names(count)

    def encode_audio(self, waveform: Tensor) -> AudioSources:
        """waveform [B,T] float32 at the configured rate -> AudioSources."""
        return self.encode_spectrogram(self.frontend(waveform))

    @abstractmethod
    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> AudioSources."""

    def hand_over(self, audio: AudioSources) -> Tensor:
        """The sources [B,K,D] that the audio half gives the image half."""
        return audio.embedding

    def encode_image(self, image: Tensor) -> ImageCells:
        """image [B,H,W,3] uint8 RGB -> ImageCells."""
        return self.encode_pixels(self.normalize(image))

    def normalize(self, image: Tensor) -> Tensor:
        """image [B,H,W,3] uint8 RGB -> [B,3,H,W] with ImageNet's mean and deviation taken out."""
        if image.dim() != 4 or image.shape[3] != 3:
            raise ValueError(f"image must be [B,H,W,3] RGB, got {tuple(image.shape)}: move the channels last")
        return (image.to(self.image_mean.dtype).permute(0, 3, 1, 2) - self.image_mean) / self.image_std

    @abstractmethod
    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""

    @abstractmethod
    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Maps [B,K,h,w]."""

    @abstractmethod
    def compute(self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True) -> Losses:
        """The losses of one global batch, or without `gather` of this process's own."""

    def forward_features(self, image: Tensor, spectrogram: Tensor) -> Features:
        """normalised image [B,3,H,W] and log-spectrogram [B,1,F,frames] -> Features."""
        audio = self.encode_spectrogram(spectrogram)
        cells = self.encode_pixels(image)
        return Features(
            scores=self.localize(audio, cells),
            audio_prob=None if audio.logit is None else audio.logit.sigmoid(),
            visual_prob=None if cells.logit is None else cells.logit.sigmoid(),
        )

    def forward(self, waveform: Tensor, image: Tensor) -> tuple[AudioSources, ImageCells]:
        """Both halves: waveform [B,T] and image [B,H,W,3] uint8."""
        return self.encode_audio(waveform), self.encode_image(image)

    def picture_backbones(self) -> list[nn.Module]:
        """The backbones that see the normalised picture itself."""
        return [self.visual_encoder.backbone]

    def prepare(self, waveform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """What a training step makes of a batch before it is encoded: [B,T] and [B,H,W,3] in the same shapes."""
        return waveform, image

    def begin_training(self, visual_weights: str) -> None:
        """Make what only training needs; `visual_weights` names what the visual encoder starts from."""

    def enter_stage(self, stage: int, batches: Iterable[Batch]) -> None:
        """A stage after the first begins; `batches` shows some of the training scenes."""

    def on_epoch(self, batches: Iterable[Batch]) -> None:
        """An epoch begins."""

    def end_training(self, batches: Iterable[Batch]) -> None:
        """Training is over; `batches` shows the validation scenes, or without them some of training."""

    def inference_state(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("school.")}


class AVGN(TwoHalves):
    """The audio-visual grouping network and its ablation rows (METHOD sections 2-6 and 8)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.variant == "neither":
            return
        self.tokens = nn.Parameter(torch.empty(config.num_classes, config.dim))
        nn.init.trunc_normal_(self.tokens, std=0.02)
        self.tokens.requires_grad = config.variant != "grouping"
        self.audio_transformer = build_transformer(config)
        self.visual_transformer = build_transformer(config)
        self.audio_grouping = build_audio_grouping(config)
        self.visual_grouping = build_visual_grouping(config)
        self.audio_presence = nn.Linear(config.dim, 1)
        self.visual_presence = nn.Linear(config.dim, 1)
        if config.variant != "grouping":
            self.token_class = nn.Linear(config.dim, config.num_classes)
        if config.visual_gate == "token":
            self.token_gate = nn.Linear(config.dim, config.dim, bias=False)

    @property
    def has_presence(self) -> bool:
        """Whether the model says which classes sound and which are visible."""
        return self.config.variant != "neither"

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> AudioSources."""
        features = self.audio_encoder(spectrogram)[:, None]
        if not self.has_presence:
            return AudioSources(embedding=features, logit=None)
        grouped = self.audio_grouping(*self.audio_transformer(features, self.tokens))
        return AudioSources(embedding=grouped, logit=self.audio_presence(grouped).squeeze(2))

    def hand_over(self, audio: AudioSources) -> Tensor:
        """The sources [B,K,D] that the audio half gives the image half: of length one, but for the released variant."""
        if self.config.variant == "released":
            return audio.embedding
        return nn.functional.normalize(audio.embedding, dim=2)

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""
        cells, grid = self._cells(pixels)
        if not self.has_presence:
            return ImageCells(cells=cells, gate=None, logit=None, grid=grid)
        # the transformer changes the features that are grouped; the maps are made from the encoder's own
        grouped = self.visual_grouping(*self.visual_transformer(cells, self.tokens))
        logit = self.visual_presence(grouped).squeeze(2)
        return ImageCells(cells=cells, gate=self._gate(grouped), logit=logit, grid=grid)

    def _cells(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Cells [B,P,D] and their grid; with pair_input="crops", a canvas of n pictures is encoded one by one."""
        count = pixels.shape[3] // self.config.image_size[1]
        if self.config.pair_input == "canvas" or count < 2 or pixels.shape[3] % self.config.image_size[1]:
            return self.visual_encoder(pixels)
        batch = pixels.shape[0]
        crops = torch.cat(pixels.chunk(count, dim=3))
        cells, (height, width) = self.visual_encoder(crops)
        # [n,B,h,w,D] -> [B,h,n,w,D]: rows run through all pictures
        cells = cells.view(count, batch, height, width, -1).permute(1, 2, 0, 3, 4)
        return cells.reshape(batch, height * count * width, -1), (height, count * width)

    def _gate(self, grouped: Tensor) -> Tensor | None:
        if self.config.visual_gate == "grouped":
            return grouped
        if self.config.visual_gate == "token":
            return self.token_gate(self.tokens).expand(grouped.shape[0], -1, -1)
        return None

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Maps [B,K,h,w]: the cosine of every source with every gated cell (METHOD section 6).

        The released variant gives <f, g> / temperature instead (METHOD section 7).
        """
        if self.config.variant == "released":
            # its embeddings keep their lengths
            maps = torch.matmul(audio.embedding, image.cells.transpose(1, 2)) / self.config.temperature
        else:
            maps = cosine_maps(audio.embedding, image.cells, image.gate)
        return maps.reshape(maps.shape[0], maps.shape[1], *image.grid)

    def compute(self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True) -> Losses:
        """METHOD section 5."""
        from avgn.losses import compute_losses

        return compute_losses(audio, image, labels, self.token_logits(), self.config, gather=gather)

    def token_logits(self) -> Tensor | None:
        """Class logits [C,C] of the raw tokens (paper eq. 9), None where tokens are frozen or absent."""
        if not self.has_presence or self.config.variant == "grouping":
            return None
        return self.token_class(self.tokens)


def build_model(config: Config) -> TwoHalves:
    """Build the localizer that the configuration describes, with random weights."""
    if config.tokens == "classifiers":
        from avgn.world.model import WorldLocalizer

        return WorldLocalizer(config)
    made = config.kind.load()(config)
    assert isinstance(made, TwoHalves)
    return made
