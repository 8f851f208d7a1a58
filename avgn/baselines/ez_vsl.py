"""Mo & Morgado 2022: the best cell of the own picture must beat the best cells of all others, and the other way round.

    sim_bm = max_p cos(a_b, v_mp)      L = -mean_b [ log softmax_m(sim_bm / tau)_b + log softmax_m(sim_mb / tau)_b ]
    map = alpha norm(S) + (1 - alpha) norm(S_object), with S_object the L1 norm of an ImageNet network's features

Legend: B batch, P cells, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines.parts import SharedMap, as_maps, check_positive, check_share, global_batch, make_losses, min_max
from avgn.config import Config
from avgn.encoders import image_backbone
from avgn.kernels import max_pooled_cosine
from avgn.runtime.errors import InputError
from avgn.training.hooks import TrainingHooks
from avgn.types import AudioSources, ImageCells, Labels, Losses


@dataclass(frozen=True, kw_only=True)
class EasyVisualSoundsOptions:
    """`alpha` is the share of the map that the sound decides; below 1 ImageNet weights must be at hand."""

    temperature: float = 0.03
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "temperature", "alpha")
        check_share(self, "alpha", open_end=False)


class EasyVisualSounds(SharedMap):
    """The map is the cosine; with an object prior the cells [B,P,D+1] end in the prior's value."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: EasyVisualSoundsOptions = config.system_options
        self.prior: nn.Module | None = None
        if self.options.alpha < 1:
            self.prior = image_backbone(config).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EasyVisualSounds:
        super().train(mode)
        if self.prior is not None:
            self.prior.eval()
        return self

    def image_backbones(self) -> list[nn.Module]:
        """Return the visual encoder's and the prior's."""
        return super().image_backbones() + ([] if self.prior is None else [self.prior])

    def encode_pixels(self, pixels: Tensor) -> ImageCells:
        """normalised image [B,3,H,W] -> ImageCells."""
        image = super().encode_pixels(pixels)
        if self.prior is None:
            return image
        objects = self.prior(pixels).abs().mean(dim=1).flatten(1)
        cells = torch.cat([image.cells, objects[:, :, None].to(image.cells.dtype)], dim=2)
        return ImageCells(cells=cells, gate=None, logit=None, grid=image.grid)

    def localize(self, audio: AudioSources, image: ImageCells) -> Tensor:
        """Return maps [B,1,h,w]."""
        cells = image.cells[:, :, : self.config.dim]
        heard = torch.matmul(audio.embedding, cells.transpose(1, 2))
        if self.prior is not None:
            objects = image.cells[:, :, self.config.dim :].transpose(1, 2)
            heard = self.options.alpha * min_max(heard) + (1 - self.options.alpha) * min_max(objects)
        return as_maps(heard, image.grid)

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the multiple-instance contrast in both directions."""
        audio, image, _ = global_batch(audio, image, labels, gather)
        cells = image.cells[:, :, : self.config.dim].contiguous()
        similarity, _ = max_pooled_cosine(audio.embedding, cells)
        return make_losses(two_way_contrast(similarity[:, :, 0] / self.options.temperature))


class EasyVisualSoundsTraining(TrainingHooks):
    """The prior is the network that the visual encoder starts from."""

    def __init__(self, model: EasyVisualSounds, visual_weights: str = "random") -> None:
        super().__init__(model, visual_weights)
        if model.prior is None:
            return
        if visual_weights == "random":
            raise InputError(
                f"ez-vsl with alpha {model.options.alpha} mixes in the features of an ImageNet network, and its "
                "weights aren't at hand: pass a file as `visual_weights`, or alpha 1"
            )
        model.prior.load_state_dict(model.visual_encoder.backbone.state_dict())


def two_way_contrast(logits: Tensor) -> Tensor:
    """Cross-entropy of logits [B,B] over their rows and over their columns, at the diagonal."""
    target = torch.arange(len(logits), device=logits.device)
    return nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)
