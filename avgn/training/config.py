"""Configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Schedule = Literal["constant", "cosine"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Keep = Literal["best", "last"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults are the paper's (Adam 1e-4, batch 128, 100 epochs).

    `steps` (if given) ends training before `epochs` do. `keep` names the weights that become the checkpoint: those of
    the lowest validation loss, or the last ones. `dropout` acts on the encoders' features; `momentum` > 0 contrasts
    against a moving average of the model. `auxiliary` > 0 weighs presence losses through fixed random linear
    heads on the encoders' own features, which start the encoders sooner; they are no part of the checkpoint's model.
    """

    epochs: int = 100
    steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    gradient_clip: float = 1.0
    accumulate: int = 1
    precision: Precision = "32-true"
    dropout: float = 0.0
    momentum: float = 0.0
    auxiliary: float = 0.0
    seed: int = 0
    workers: int = 0
    cache: bool = False
    channels_last: bool = True
    compile: bool = False
    checkpoint_steps: int = 200
    validate_epochs: int = 1
    keep: Keep = "best"
    visual_weights: str = "imagenet"

    def __post_init__(self) -> None:
        for name, kind in (("schedule", Schedule), ("precision", Precision), ("keep", Keep)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}: choose one"
                )
        for name in ("epochs", "batch_size", "accumulate", "checkpoint_steps", "validate_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}: choose a larger value")
        for name in ("dropout", "momentum"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}: 0 switches it off")
        if self.auxiliary < 0:
            raise ValueError(f"auxiliary must not be negative, got {self.auxiliary}: 0 switches it off")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}: 1e-4 is the paper's")
