"""Configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from avgn.data.augment import Augmentation
from avgn.data.mixing import Level, Mixing

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

    `batch_size` is that of one process. `accumulate` sums gradients of several batches: for contrastive losses this is
    not equal to one batch of their size, whose images would all be negatives of each other.

    `mixture` is the (least, most) scenes that are shown side by side and heard together, `mix_level`, `silent` and
    `off_screen` as in `avgn.data.mixing.Mixing`; `zoom`, `light`, `color`, `gain_db` and `padding` as in
    `avgn.data.augment.Augmentation`. `frequency_mask` and `time_mask` are the widest bands (rows, columns) that
    SpecAugment hides of a spectrogram. `balance` draws scenes so that classes come equally often. `audio_cache` is a
    folder for decoded sounds. `checkpoint_activations` computes activations again in the backward pass instead of
    keeping them. `visual_weights` ("imagenet", "random" or a file) and `audio_weights` (a file) are what the encoders'
    ResNets start from. `channels_last` lays pictures out as convolutions on the CPU and tensor cores like them.
    `compile` makes one graph of both halves by torch.compile, from the spectrogram to the presence logits; losses and
    validation stay eager. It needs a C++ compiler and minutes to begin, and is off because it was slower on the CPU.
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
    audio_cache: str | None = None
    mixture: tuple[int, int] = (1, 1)
    mix_level: Level = "plain"
    silent: float = 0.0
    off_screen: float = 0.0
    zoom: float = 1.15
    light: float = 0.2
    color: float = 0.0
    gain_db: float = 6.0
    padding: float = 0.1
    frequency_mask: int = 0
    time_mask: int = 0
    balance: bool = False
    checkpoint_activations: bool = False
    channels_last: bool = True
    compile: bool = False
    checkpoint_steps: int = 200
    validate_epochs: int = 1
    keep: Keep = "best"
    visual_weights: str = "imagenet"
    audio_weights: str | None = None

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
        for name in ("frequency_mask", "time_mask", "workers", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}: 0 switches it off")
        object.__setattr__(self, "mixture", tuple(self.mixture))
        # both check their values
        _ = self.augmentation, self.mixing
        if self.compile and self.checkpoint_activations:
            raise ValueError(
                "compile and checkpoint_activations can't be combined, both rebuild the backward pass: leave one out"
            )
        if self.auxiliary < 0:
            raise ValueError(f"auxiliary must not be negative, got {self.auxiliary}: 0 switches it off")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}: 1e-4 is the paper's")

    @property
    def audio_cache_folder(self) -> Path | None:
        """The folder of decoded sounds."""
        return None if self.audio_cache is None else Path(self.audio_cache)

    @property
    def augmentation(self) -> Augmentation:
        """How pictures and sounds are changed at random."""
        return Augmentation(
            zoom=self.zoom, light=self.light, color=self.color, gain_db=self.gain_db, padding=self.padding
        )

    @property
    def mixing(self) -> Mixing:
        """How scenes are mixed."""
        return Mixing(pictures=self.mixture, level=self.mix_level, silent=self.silent, off_screen=self.off_screen)
