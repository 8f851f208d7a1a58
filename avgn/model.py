"""The localizer: an audio half, an image half, and the maps between them.

Legend: B batch, T samples, H x W pixels, P = h * w cells, K maps, C classes, D width.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from avgn.config import Config
from avgn.encoders import build_encoders
from avgn.encoders.efficientnet_lite import PIXEL_MEAN, PIXEL_STD
from avgn.grouping import build_audio_grouping, build_visual_grouping
from avgn.kernels import cosine_maps
from avgn.losses import compute_losses
from avgn.runtime.bundle_schema import Joint, Thresholds, source_names
from avgn.transformer import build_transformer
from avgn.types import AudioSources, Features, ImageCells, Labels, Losses

IMAGENET_MEAN = (0.485, 0.456, 0.406)
# what a model calls its front-end, and the weights of graphs that belong to it begin with
FRONT_END = "frontend"
IMAGENET_STD = (0.229, 0.224, 0.225)
# mean and deviation of pixels from 0 to 1, for each channel
IMAGENET_PIXELS = (IMAGENET_MEAN, IMAGENET_STD)
WORLD_PIXELS = ((PIXEL_MEAN / 255,) * 3, (PIXEL_STD / 255,) * 3)


class LocalizerModel(nn.Module, ABC):
    """What every localizer has: encoders, the two halves, the maps between them and its own losses.

    A system gives `encode_spectrogram`, `encode_pixels`, `localize` and `losses`. Everything that trains, evaluates,
    exports or streams a localizer does it through this interface. What only training needs is no part of a model: see
    `avgn.training.hooks`.
    """

    image_mean: Tensor
    image_std: Tensor
    # the map's maximum at which something is seen, for systems without presence
    map_threshold: float = 0.5
    # how both halves decide together, where they do
    joint: Joint | None = None
    # patches of a window whose evidence counts, for a model that hears in patches
    loudest_patches: int = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.thresholds: Thresholds | None = None
        self.frontend, self.audio_encoder, self.visual_encoder = self.build_encoders()
        scale = WORLD_PIXELS if config.encoders == "world" else IMAGENET_PIXELS
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in scale)
        self.register_buffer("image_mean", mean * 255, persistent=False)
        self.register_buffer("image_std", std * 255, persistent=False)

    def build_encoders(self) -> tuple[Any, Any, Any]:
        """Return the front-end, the audio encoder and the visual encoder; encoders have a `backbone`."""
        return build_encoders(self.config)

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
        """Return the sources [B,K,D] that the audio half gives the image half."""
        return audio.embedding

    def encode_image(self, image: Tensor) -> ImageCells:
        """image [B,H,W,3] uint8 RGB -> ImageCells."""
        return self.encode_pixels(self.normalize(image))

    def normalize(self, image: Tensor) -> Tensor:
        """image [B,H,W,3] uint8 RGB -> [B,3,H,W] with the mean and deviation that its encoder knows taken out."""
        if image.dim() != 4 or image.shape[3] != 3:
            raise ValueError(f"image must be [B,H,W,3] RGB, got {tuple(image.shape)}: move the channels last")
        return (image.to(self.image_mean.dtype).permute(0, 3, 1, 2) - self.image_mean) / self.image_std

    @abstractmethod
    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""

    @abstractmethod
    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,K,h,w]."""

    @abstractmethod
    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the losses of one global batch, or without `gather` of this process's own.

        `stage`: of a training in stages, from 0.
        """

    def compute(self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True) -> Losses:
        """Call `losses`, which this was called until version 0.1."""
        warnings.warn("compute is called losses now: use that name", DeprecationWarning, stacklevel=2)
        return self.losses(audio, image, labels, gather=gather)

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

    def image_backbones(self) -> list[nn.Module]:
        """Return the backbones that see the normalised picture itself."""
        return [self.visual_encoder.backbone]

    def published_parts(self) -> list[nn.Module]:
        """Return what rests where published weights are not trained: the backbones."""
        return [self.audio_encoder.backbone, *self.image_backbones()]

    def shared_gate(self) -> Tensor | None:
        """Return the gate [1,K,D] where it is the same for all images, else None."""
        return None

    def presence_heads(self) -> list[nn.Module]:
        """Return the layers that give presence logits, which stay in float32 where others compute in half precision."""
        return []


class AVGN(LocalizerModel):
    """The audio-visual grouping network and its ablation rows (docs/method.md, sections 2-6 and 8)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.ablation == "neither":
            return
        self.tokens = nn.Parameter(torch.empty(config.num_classes, config.dim))
        nn.init.trunc_normal_(self.tokens, std=0.02)
        self.tokens.requires_grad = config.ablation != "grouping"
        self.audio_transformer, self.visual_transformer = self.build_transformers()
        self.audio_grouping, self.visual_grouping = self.build_groupings()
        self.audio_presence = nn.Linear(config.dim, 1)
        self.visual_presence = nn.Linear(config.dim, 1)
        if config.ablation != "grouping":
            self.token_class = nn.Linear(config.dim, config.num_classes)
        if config.visual_gate == "token":
            self.token_gate = nn.Linear(config.dim, config.dim, bias=False)

    def build_transformers(self) -> tuple[nn.Module, nn.Module]:
        """Those over the audio features and over the cells: ([B,P,D], [C,D]) -> [B,P,D], [B,C,D]."""
        return build_transformer(self.config), build_transformer(self.config)

    def build_groupings(self) -> tuple[nn.Module, nn.Module]:
        """Those of the audio features and of the cells: ([B,P,D], [B,C,D]) -> [B,C,D]."""
        return build_audio_grouping(self.config), build_visual_grouping(self.config)

    @property
    def has_presence(self) -> bool:
        """Whether the model says which classes sound and which are visible."""
        return self.config.ablation != "neither"

    def encode_spectrogram(self, spectrogram: Tensor) -> AudioSources:
        """log-spectrogram [B,1,F,frames] -> AudioSources."""
        features = self.audio_encoder(spectrogram)[:, None]
        if not self.has_presence:
            return AudioSources(embedding=features, logit=None)
        grouped = self.audio_grouping(*self.audio_transformer(features, self.tokens))
        return AudioSources(embedding=grouped, logit=self.audio_presence(grouped).squeeze(2))

    def hand_over(self, audio: AudioSources) -> Tensor:
        """Return the sources [B,K,D] that the audio half gives the image half, of length one."""
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

    def shared_gate(self) -> Tensor | None:
        """Return the gate [1,K,D] where the tokens alone make it."""
        return self.token_gate(self.tokens)[None] if self.config.visual_gate == "token" else None

    def presence_heads(self) -> list[nn.Module]:
        """Return the layers that give presence logits."""
        return [self.audio_presence, self.visual_presence] if self.has_presence else []

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,K,h,w]: the cosine of every source with every gated cell (docs/method.md, section 6)."""
        maps = cosine_maps(audio.embedding, image.cells, image.gate)
        return maps.reshape(maps.shape[0], maps.shape[1], *image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """L_loc + L_group (docs/method.md, section 5)."""
        return compute_losses(audio, image, labels, self.token_logits(), self.config, gather=gather)

    def token_logits(self) -> Tensor | None:
        """Class logits [C,C] of the raw tokens (paper eq. 9), None where tokens are frozen or absent."""
        if not self.has_presence or self.config.ablation == "grouping":
            return None
        return self.token_class(self.tokens)


def build_model(config: Config) -> LocalizerModel:
    """Build the localizer that the configuration describes, with random weights."""
    made = config.kind.load()(config)
    assert isinstance(made, LocalizerModel)
    return made


# deprecated: the name until version 0.1
TwoHalves = LocalizerModel
