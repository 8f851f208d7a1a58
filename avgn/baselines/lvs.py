"""Chen et al. 2021: certain cells are positives, uncertain ones ignored, the picture's own background negatives.

    S_ij(p) = <v_ip, a_j>      m(p) = sigmoid((S_ii(p) - eps_p) / tau)      n(p) = 1 - sigmoid((S_ii(p) - eps_n) / tau)
    P_ij = sum m S_ij / sum m, with the pair's own mask      N_i = { sum n S_ii / sum n } and { P_ij : j != i }
    L = -mean_i log( exp(P_ii / t) / (exp(P_ii / t) + sum over N_i of exp(. / t)) )
    `others="mean"` has mean_p S_ij for P_ij, as printed: a picture with one loud cell solves that without listening

Legend: B batch, P cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from avgn.baselines.parts import SharedMap, all_pairs, check_positive, global_batch, make_losses
from avgn.config import Config
from avgn.types import AudioSources, ImageCells, Labels, Losses

Others = Literal["masked", "mean"]


@dataclass(frozen=True, kw_only=True)
class LocalizingVisualSoundsOptions:
    """eps_p and eps_n, the temperature tau of the masks and t of the contrast; what other sounds' responses are."""

    positive: float = 0.65
    negative: float = 0.4
    mask_temperature: float = 0.03
    temperature: float = 0.07
    others: Others = "masked"

    def __post_init__(self) -> None:
        check_positive(self, "mask_temperature", "temperature")
        if self.others not in get_args(Others):
            raise ValueError(f"option others must be masked or mean, got {self.others!r}: mean is as printed")
        if not self.negative <= self.positive:
            raise ValueError(
                f"option negative must not exceed positive, got {self.negative} and {self.positive}: 0.4 and 0.65 are "
                "the paper's"
            )


class LocalizingVisualSounds(SharedMap):
    """The map is the cosine."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: LocalizingVisualSoundsOptions = config.system_options

    def losses(
        self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True, stage: int = 0
    ) -> Losses:
        """Return the contrast of the tri-map."""
        audio, image, _ = global_batch(audio, image, labels, gather)
        similarity = all_pairs(audio, image).transpose(0, 1)
        return make_losses(tri_map_loss(similarity, self.options))


def tri_map_loss(similarity: Tensor, options: LocalizingVisualSoundsOptions) -> Tensor:
    """Return the loss of S [i,j,p]: image i's cells with sound j."""
    responses = masked_responses(similarity, options)
    others = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return contrast(similarity, responses, responses.diagonal(), others, options)


def masked_responses(similarity: Tensor, options: LocalizingVisualSoundsOptions) -> Tensor:
    """P [B,B] of S [B,B,P]."""
    return soft_mean(similarity, (similarity - options.positive) / options.mask_temperature)


def contrast(
    similarity: Tensor, responses: Tensor, wanted: Tensor, negatives: Tensor, options: LocalizingVisualSoundsOptions
) -> Tensor:
    """Cross-entropy of the wanted responses [B] against the own background and the other sounds.

    negatives [B,B] bool: the sounds that an image is told from.
    """
    own = similarity.diagonal(dim1=0, dim2=1).T
    background = soft_mean(own, -(own - options.negative) / options.mask_temperature)
    others = similarity.mean(dim=2) if options.others == "mean" else responses
    others = others.masked_fill(~negatives, float("-inf"))
    logits = torch.cat([wanted[:, None], background[:, None], others], dim=1) / options.temperature
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def soft_mean(values: Tensor, logits: Tensor) -> Tensor:
    """sum_p sigmoid(x_p) values_p / sum_p sigmoid(x_p), also where every sigmoid is 0 in float32."""
    return (torch.softmax(nn.functional.logsigmoid(logits), dim=-1) * values).sum(dim=-1)
