"""Training in Lightning's Trainer."""

from avgn.training.config import TrainConfig
from avgn.training.fit import train

__all__ = ["TrainConfig", "train"]
