"""Training in stages: a system is told once that an epoch or a stage begins, also when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from avgn.training.hooks import TrainingHooks
from avgn.types import Batch

Survey = Callable[[], Iterable[Batch]]


class Stages(nn.Module):
    """Remembers, in the trainer's checkpoint, which epochs and stages were entered."""

    entered: Tensor
    epochs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("entered", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def begin_step(self, hooks: TrainingHooks, step: int, total: int, epoch: int, survey: Survey) -> None:
        """Set the stage for a step out of `total`; let the system prepare an epoch or a stage that begins."""
        if int(self.epochs) <= epoch:
            self.epochs.fill_(epoch + 1)
            with looking(hooks.model):
                hooks.begin_epoch(survey())
        hooks.stage = stage_of(hooks.stage_shares, step, total)
        while int(self.entered) < hooks.stage:
            self.entered += 1
            with looking(hooks.model):
                hooks.enter_stage(int(self.entered), survey())


def stage_of(shares: tuple[float, ...], step: int, total: int) -> int:
    """Return the stage of a step, from 0, where stages begin at `shares` of the steps."""
    return sum(step >= share * total for share in shares)


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Yield the model in evaluation mode, without gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
