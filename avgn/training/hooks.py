"""What a system needs in training beside its losses; a system's own class is named by its entry in `avgn.systems`.

Legend: B batch, T samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from avgn.model import LocalizerModel
from avgn.types import AudioSources, Batch, ImageCells, Labels, Losses


class TrainingHooks:
    """Training in one stage, on batches as they are, without anything that the model itself doesn't hold.

    The trainer calls, in this order: `prepare` and `losses` for every batch, `begin_epoch` and `enter_stage` before the
    first batch that they concern (also of a resumed run, but never twice), `end` once.
    """

    # shares of all steps at which the second stage and those after it begin
    stage_shares: tuple[float, ...] = ()
    # above 0, both halves are contrasted with those of a moving average of the model
    momentum: float = 0.0
    # what is trained with, or learned from, and is no part of the model; the trainer's checkpoints keep it
    school: nn.Module | None = None

    def __init__(self, model: LocalizerModel, visual_weights: str = "random") -> None:
        """`visual_weights` names what the visual encoder starts from. Raises InputError where that won't do."""
        self.model = model
        self.stage = 0

    def prepare(self, waveform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Make of a batch what is encoded: waveform [B,T] and image [B,H,W,3] in the same shapes."""
        return waveform, image

    def losses(self, audio: AudioSources, image: ImageCells, labels: Labels, *, gather: bool = True) -> Losses:
        """Return the losses of this stage of one global batch, or without `gather` of this process's own."""
        return self.model.losses(audio, image, labels, gather=gather, stage=self.stage)

    def enter_stage(self, stage: int, batches: Iterable[Batch]) -> None:
        """Begin a stage after the first; `batches` shows some of the training scenes."""

    def begin_epoch(self, batches: Iterable[Batch]) -> None:
        """Begin an epoch; `batches` shows some of the training scenes."""

    def end(self, batches: Iterable[Batch]) -> None:
        """End the training; `batches` shows the validation scenes, or without them some of training."""


def hooks_of(model: LocalizerModel, visual_weights: str = "random") -> TrainingHooks:
    """Build what the model's system needs in training. Raises InputError where the weights won't do."""
    kind = model.config.kind.load_hooks() or TrainingHooks
    made = kind(model, visual_weights)
    assert isinstance(made, TrainingHooks)
    return made
