"""Configuration of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from avgn.data.augment import Augmentation
from avgn.data.mixing import Mixing

Schedule = Literal["constant", "cosine"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Keep = Literal["best", "last"]
FREEZE = ENCODERS, NOTHING = ("encoders", "none")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults are the paper's (Adam 1e-4, batch 128, 100 epochs).

    Options on a command line and in files are flat: `from_options` puts those of `NESTED` where they belong.
    """

    epochs: int = 100
    """Times that every scene is trained on."""
    steps: int | None = None
    """Optimiser steps; training ends with them, whatever `epochs` says."""
    batch_size: int = 128
    """Scenes of a batch of one process."""
    learning_rate: float = 1e-4
    """Step size of Adam."""
    weight_decay: float = 0.0
    """Share by which Adam shrinks matrices in each step, times the learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to its full value."""
    schedule: Schedule = "constant"
    """The learning rate after that: constant, or falling to 0 along half a cosine."""
    gradient_clip: float = 1.0
    """Largest norm of all gradients; 0 clips none."""
    accumulate: int = 1
    """Batches whose gradients are summed for one step; for contrastive losses that is not one batch of their size,
    whose images would all be negatives of each other.
    """
    precision: Precision = "32-true"
    """32-true, bf16-mixed, or 16-mixed (GPU alone)."""
    dropout: float = 0.0
    """Chance that a number of the encoders' features is hidden."""
    momentum: float = 0.0
    """Above 0, each half is also contrasted with the other half of a moving average of the model; 0.999 is usual."""
    auxiliary: float = 0.0
    """Weight of presence losses through fixed random linear heads on the encoders' own features, which start the
    encoders sooner; the heads are no part of the checkpoint's model.
    """
    seed: int = 0
    """What all chance follows from."""
    workers: int = 0
    """Processes that read scenes; 0 reads them in between."""
    cache: bool = False
    """Keep decoded images and sounds in memory."""
    audio_cache: str | None = None
    """Folder for decoded sounds, shared by processes and runs."""
    mixing: Mixing = field(default_factory=Mixing)
    """How scenes are mixed."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How images and sounds are changed at random."""
    frequency_mask: int = 0
    """Rows of the widest band of a spectrogram that SpecAugment hides."""
    time_mask: int = 0
    """Columns of the widest band of a spectrogram that SpecAugment hides."""
    balance: bool = False
    """Draw scenes so that classes come equally often."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    channels_last: bool = True
    """Lay images out as convolutions on the CPU and tensor cores like them."""
    compile: bool = False
    """Make one graph of both halves by torch.compile, from the spectrogram to the presence logits; losses and
    validation stay eager. It needs a C++ compiler and minutes to begin, and was slower on the CPU.
    """
    checkpoint_steps: int = 200
    """Steps between two checkpoints to resume from."""
    validate_epochs: int = 1
    """Epochs between two validations."""
    keep: Keep = "best"
    """Weights that become the checkpoint: those of the lowest validation loss (best), or the last."""
    visual_weights: str = "imagenet"
    """What the visual encoder's ResNet starts from: imagenet, random or a file; encoders `world` start both from their
    published weights, or with random from none.
    """
    audio_weights: str | None = None
    """File that the audio encoder's ResNet starts from."""
    init: str | None = None
    """Checkpoint folder, of the same configuration, whose weights the run starts from."""
    freeze: str | None = None
    """What is not trained: encoders, or none. By default the encoders `world` with published weights, otherwise none.
    """

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
        if self.compile and self.checkpoint_activations:
            raise ValueError(
                "compile and checkpoint_activations can't be combined, both rebuild the backward pass: leave one out"
            )
        if self.freeze not in (None, *FREEZE):
            raise ValueError(f"freeze must be {' or '.join(FREEZE)}, got {self.freeze!r}: leave it out for the default")
        if self.init is not None and (self.visual_weights != "imagenet" or self.audio_weights is not None):
            raise ValueError("init gives all weights: leave visual_weights and audio_weights out")
        if self.auxiliary < 0:
            raise ValueError(f"auxiliary must not be negative, got {self.auxiliary}: 0 switches it off")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}: 1e-4 is the paper's")

    @classmethod
    def from_options(cls, **options: Any) -> TrainConfig:
        """Build it of flat options, as `mixture` for `mixing.mixture`.

        Raises ValueError for a value that can't be used, TypeError for a name that isn't known.
        """
        for place, kind in NESTED.items():
            inner = {entry.name: options.pop(entry.name) for entry in fields(kind) if entry.name in options}
            if inner:
                options[place] = kind(**inner)
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """Return the flat options, as JSON can hold them."""
        flat: dict[str, Any] = {}
        for name, value in vars(self).items():
            flat |= vars(value) if name in NESTED else {name: value}
        return flat

    @property
    def audio_cache_folder(self) -> Path | None:
        """The folder of decoded sounds."""
        return None if self.audio_cache is None else Path(self.audio_cache)


# settings of their own kind, whose options stand among the others
NESTED: Mapping[str, type[Mixing] | type[Augmentation]] = {"mixing": Mixing, "augmentation": Augmentation}
