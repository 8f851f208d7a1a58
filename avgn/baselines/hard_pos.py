"""Senocak et al. 2022: as lvs, with samples that a trained model finds alike as further positives.

    stage 1: lvs      stage 2: i and j are alike where cos(a_i, a_j) or cos(v_i, v_j) of the frozen model of stage 1
    reaches what gives every scene `neighbours` on average; the sounds of those alike by ear, and the pictures of those
    alike by eye, are positives, and neither are negatives

Legend: B batch, P cells, D width, N scenes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avgn.baselines import lvs
from avgn.baselines.parts import all_pairs, check_share, global_batch, make_losses
from avgn.losses import gather_rows
from avgn.training.hooks import TrainingHooks
from avgn.types import AudioSources, Batch, ImageCells, Labels, Losses


@dataclass(frozen=True, kw_only=True)
class HardPositivesOptions(lvs.LocalizingVisualSoundsOptions):
    """Those of lvs; `neighbours` of a scene among those that are surveyed, from `second_stage` of the steps on."""

    second_stage: float = 0.5
    neighbours: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "second_stage")
        if self.neighbours < 1:
            raise ValueError(f"option neighbours must be at least 1, got {self.neighbours}: 10 is the default")


class School(nn.Module):
    """The frozen model of the first stage, and the similarity from which samples are alike by ear and by eye."""

    least: Tensor

    def __init__(self, audio: nn.Module, visual: nn.Module) -> None:
        super().__init__()
        self.audio = copy.deepcopy(audio).requires_grad_(False)
        self.visual = copy.deepcopy(visual).requires_grad_(False)
        self.register_buffer("least", torch.full((2,), math.inf))
        self.eval()

    def train(self, mode: bool = True) -> School:
        return super().train(False)

    @torch.no_grad()
    def features(self, spectrogram: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B,D] of the sounds and of whole pictures, of length one."""
        return self.audio(spectrogram), nn.functional.normalize(self.visual(pixels)[0].mean(dim=1), dim=1)


class HardPositives(lvs.LocalizingVisualSounds):
    """The map is the cosine; the losses of the model alone are those of lvs, the first stage's."""

    options: HardPositivesOptions


class HardPositivesTraining(TrainingHooks):
    """The second stage has hard positives: what the school, the model as the first stage left it, finds alike."""

    school: School

    def __init__(self, model: HardPositives, visual_weights: str = "random") -> None:
        super().__init__(model, visual_weights)
        self.options = model.options
        self.stage_shares = (self.options.second_stage,)
        # a copy that stage 2 fills
        self.school = School(model.audio_encoder, model.visual_encoder)
        self._known: tuple[Tensor, Tensor] | None = None

    def enter_stage(self, stage: int, batches: Iterable[Batch]) -> None:
        """Freeze the model as it is, and find from which similarity on a scene has so many neighbours."""
        self.school.audio.load_state_dict(self.model.audio_encoder.state_dict())
        self.school.visual.load_state_dict(self.model.visual_encoder.state_dict())
        found = [self._features(batch.waveform, batch.image) for batch in batches]
        for place, features in enumerate(zip(*found, strict=True)):
            self.school.least[place] = least_similarity(torch.cat(features), self.options.neighbours)

    def prepare(self, waveform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what the school thinks of the batch."""
        self._known = self._features(waveform, image) if self.stage > 0 else None
        return waveform, image

    def losses(self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True) -> Losses:
        """Return the loss of lvs, in the second stage with hard positives."""
        if self._known is None:
            return super().losses(audio, image, labels, gather=gather)
        audio, image, _ = global_batch(audio, image, labels, gather)
        by_ear, by_eye = (gather_rows(part) if gather else part for part in self._known)
        similarity = all_pairs(audio, image).transpose(0, 1)
        alike = [_alike(f, least) for f, least in zip((by_ear, by_eye), self.school.least, strict=True)]
        return make_losses(hard_positive_loss(similarity, alike[0], alike[1], self.options))

    def _features(self, waveform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.school.features(self.model.frontend(waveform), self.model.normalize(image))


def hard_positive_loss(
    similarity: Tensor, by_ear: Tensor, by_eye: Tensor, options: lvs.LocalizingVisualSoundsOptions
) -> Tensor:
    """Return the loss of S [i,j,p], image i with sound j; by_ear and by_eye [B,B] bool: who is alike, the diagonal
    never.

    The response that is raised is the mean over the own sound, sounds like it, and pictures like the own one.
    """
    own = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    responses = lvs.masked_responses(similarity, options)
    raised = (responses * (own | by_ear)).sum(dim=1) + (responses.T * by_eye).sum(dim=1)
    wanted = raised / ((own | by_ear).sum(dim=1) + by_eye.sum(dim=1))
    return lvs.contrast(similarity, responses, wanted, ~(own | by_ear | by_eye), options)


def least_similarity(features: Tensor, neighbours: int) -> Tensor:
    """Return the similarity [] at which features [N,D] of length one have so many neighbours on average."""
    product = (features @ features.T).fill_diagonal_(-math.inf).flatten()
    most = len(features) * (len(features) - 1)
    return product.topk(min(neighbours * len(features), most)).values[-1] if most else product.new_tensor(math.inf)


def _alike(features: Tensor, least: Tensor) -> Tensor:
    return (features @ features.T >= least).fill_diagonal_(False)
