"""Training in Lightning's Trainer: `avgn.training.fit.train` with a `TrainConfig`."""

from avgn.training.config import TrainConfig

__all__ = ["TrainConfig"]
