"""The Lightning module: losses, optimiser, and the guard against non-finite gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from avgn.config import Config
from avgn.losses import presence_loss
from avgn.model import LocalizerModel
from avgn.runtime.errors import FailureError
from avgn.training.config import TrainConfig
from avgn.training.hooks import TrainingHooks, hooks_of
from avgn.training.memory import checkpoint_activations
from avgn.training.resting import is_frozen, rest
from avgn.training.spec_augment import SpecAugment
from avgn.training.stages import Stages, Survey
from avgn.types import AudioSources, Batch, ImageCells, Labels, Losses

MOST_SKIPPED_IN_A_ROW = 10
# cuDNN's attention has gradients that are not finite at some shapes on Hopper (PyTorch's issue 196678)
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# where a trainer's checkpoint says whether the encoders were trained
FROZEN = "avgn_frozen"


class AuxiliaryHeads(nn.Module):
    """Fixed random linear presence heads on what the encoders gave last: f^a [B,D], and the best of the cells f^v.

    The class tokens reach a feature through three layers; without a shorter way its encoder waits for them.
    """

    def __init__(self, model: LocalizerModel) -> None:
        super().__init__()
        dim, count = model.config.dim, model.config.num_classes
        self.hear = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, count))
        self.see = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, count))
        # they stay as they were drawn: it is the features that learn to be read
        self.requires_grad_(False)
        self.features: dict[str, Tensor] = {}
        model.audio_encoder.register_forward_hook(lambda _, __, out: self.features.update(audio=out))
        model.visual_encoder.register_forward_hook(lambda _, __, out: self.features.update(visual=out[0]))

    def forward(self, labels: Labels, config: Config) -> Tensor:
        """The sum of both presence losses of the last batch, a scalar."""
        heard = presence_loss(self.hear(self.features.pop("audio")), labels.sounding, config)
        seen = presence_loss(self.see(self.features.pop("visual")).amax(dim=1), labels.visible, config)
        return heard + seen


class AVGNModule(LightningModule):
    """Trains a localizer; `skipped` counts the steps whose gradient was not finite."""

    def __init__(
        self,
        model: LocalizerModel,
        training: TrainConfig,
        total_steps: int,
        hooks: TrainingHooks | None = None,
        survey: Survey = lambda: iter(()),
    ) -> None:
        """`hooks`: what the system needs in training, None for what it needs with random weights."""
        super().__init__()
        self.model = model
        self.settings = training
        self.total_steps = total_steps
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.hooks = hooks or hooks_of(model)
        # its weights move and are kept with the others
        self.school = self.hooks.school
        self.register_load_state_dict_pre_hook(_todays_names)
        self.momentum = max(training.momentum, self.hooks.momentum)
        self.teacher: LocalizerModel | None = None
        if self.momentum > 0:
            self.teacher = _steady(copy.deepcopy(model))
        self.stages = Stages()
        self.survey = survey
        self.resting = rest(model, training)
        self.auxiliary = AuxiliaryHeads(model) if training.auxiliary > 0 else None
        if training.checkpoint_activations:
            checkpoint_activations(model)
        self.mask_spectrogram = SpecAugment(training.frequency_mask, training.time_mask)
        self.halves: Any = torch.compile(self._encode) if training.compile else self._encode

    @property
    def config(self) -> Config:
        """The model's configuration."""
        return self.model.config

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[FROZEN] = is_frozen(self.config, self.settings)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # Lightning doesn't move frozen dataclasses
        return batch.to(device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.stages.begin_step(self.hooks, self.global_step, self.total_steps, self.current_epoch, self._survey)
        # whatever put the whole into training mode before
        for part in self.resting:
            part.eval()
        # drop-path depends on the step alone, so that a resumed run repeats an unbroken one
        accumulate = self.settings.accumulate
        step = self.global_step * accumulate + batch_idx % accumulate
        torch.manual_seed(self.settings.seed * 1_000_003 + step * self.trainer.world_size + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self._losses(batch)
        self._log("train", losses, len(batch.image))
        if self.auxiliary is None:
            return losses.total
        extra = self.auxiliary(batch.labels, self.config)
        self.log("train/auxiliary", extra, batch_size=len(batch.image))
        return losses.total + self.settings.auxiliary * extra

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        audio, image = self.model(*self.hooks.prepare(batch.waveform, batch.image))
        # every process validates the whole set by itself
        losses = self.hooks.losses(audio, image, batch.labels, gather=False)
        if self.hooks.stage < len(self.hooks.stage_shares):
            # the losses of stages can't be compared: the best weights are those of the last one
            losses = replace(losses, total=torch.full_like(losses.total, math.inf))
        self._log("val", losses, len(batch.image))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, which also says whether the step can be taken.

        Lightning's own would refuse a fused optimizer in mixed precision, and read every gradient once more.
        """
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, gradient_clip_val or math.inf)
        if torch.isfinite(norm):
            self.skipped_in_a_row = 0
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.log("train/skipped_steps", float(self.skipped))
        if self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise FailureError(
                f"the gradient was not finite in {self.skipped_in_a_row} steps in a row (step {self.global_step}): "
                "lower learning_rate or use gradient_clip"
            )
        optimizer.zero_grad(set_to_none=True)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        # here, and not at the batch's end: there the trainer's checkpoint is written first
        if self.teacher is None:
            return
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(theirs, 1 - self.momentum)
                else:
                    mine.copy_(theirs)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1]},
        ]
        # float16's gradients are scaled, and a fused optimizer would unscale them after they were clipped; on the CPU
        # runs in bfloat16 stay those of before
        on_gpu = any(p.is_cuda for p in trained)
        fused = self.settings.precision == "32-true" or (on_gpu and self.settings.precision != "16-mixed")
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, weight_decay=0.0, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, self.settings.warmup_steps))
        if self.settings.schedule == "constant":
            return warmup
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.total_steps))))

    def _survey(self) -> Iterator[Batch]:
        return (batch.to(self.device) for batch in self.survey())

    def _encode(self, spectrogram: Tensor, image: Tensor) -> tuple[AudioSources, ImageCells]:
        return self.model.encode_spectrogram(spectrogram), self.model.encode_image(image)

    def _losses(self, batch: Batch) -> Losses:
        waveform, pixels = self.hooks.prepare(batch.waveform, batch.image)
        spectrogram = self.mask_spectrogram(self.model.frontend(waveform))
        with sdpa_kernel(ATTENTION):
            audio, image = self.halves(spectrogram, pixels)
        if self.settings.dropout > 0:
            audio, image = self._dropped(audio, image)
        losses = self.hooks.losses(audio, image, batch.labels)
        if self.teacher is None:
            return losses
        with torch.no_grad():
            slow_audio, slow_image = self.teacher(waveform, pixels)
        pairs = ((audio, slow_image), (slow_audio, image))
        crossed = [self.hooks.losses(a, i, batch.labels).localization for a, i in pairs]
        localization = 0.5 * (crossed[0] + crossed[1])
        return Losses(
            total=losses.total - losses.localization + localization,
            localization=localization,
            token=losses.token,
            audio=losses.audio,
            visual=losses.visual,
        )

    def _dropped(self, audio: AudioSources, image: ImageCells) -> tuple[AudioSources, ImageCells]:
        rate = self.settings.dropout
        return (
            AudioSources(embedding=nn.functional.dropout(audio.embedding, rate), logit=audio.logit),
            ImageCells(
                cells=nn.functional.dropout(image.cells, rate), gate=image.gate, logit=image.logit, grid=image.grid
            ),
        )

    def _log(self, stage: str, losses: Losses, count: int) -> None:
        values = {
            f"{stage}/loss": losses.total,
            f"{stage}/localization": losses.localization,
            f"{stage}/token": losses.token,
            f"{stage}/audio": losses.audio,
            f"{stage}/visual": losses.visual,
        }
        self.log_dict(values, batch_size=count, sync_dist=True)


def _steady(model: LocalizerModel) -> LocalizerModel:
    """Return a copy that is averaged into, not trained: nothing is dropped in it."""
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model.requires_grad_(False)


def _todays_names(module: nn.Module, state: dict[str, Any], *rest: Any) -> None:
    """Read checkpoints of a time when what only training needs was a part of the model."""
    for name in [name for name in state if name.startswith(("model.school.", "teacher.school."))]:
        value = state.pop(name)
        if name.startswith("model."):
            state[name.removeprefix("model.")] = value
