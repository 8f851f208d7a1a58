"""Fits what is added to the audio rows: half a step from the published rows towards those that mixtures ask for.

Presence of class k in a window is the model's own: z = (largest of its names' log-odds) + f . d_k + c_k, less where
noise is ahead, the mean of the loudest patches. Binary cross-entropy over the fitted classes, d held short on features
that are brought to a common scale.

Legend: N windows, P patches, K fitted classes, W width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avgn.world.classes import NOISES, audioset_names, find_classes
from avgn.world.settings import LOUDEST, NOISE_LEAD, NOISE_WEIGHT


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Says how to fit. `ridge`: weight of the squared rows; `share`: how much of the step to the optimum is taken."""

    epochs: int = 12
    batch_size: int = 250
    learning_rate: float = 0.01
    ridge: float = 0.0015
    bias_ridge: float = 0.003
    positive_weight: float = 4.0
    share: float = 0.5
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the settings for the record, with the constants of the model that the fit went through."""
        return asdict(self) | {"noise_weight": NOISE_WEIGHT, "noise_lead": NOISE_LEAD, "loudest": LOUDEST}


@dataclass(frozen=True)
class Evidence:
    """Holds what the published rows say: heard [N,P,K] and noise [N,P], log-odds."""

    heard: Tensor
    noise: Tensor


def published_evidence(features: NDArray[np.float16], rows: Tensor, biases: Tensor, classes: Sequence[str]) -> Evidence:
    """Compute the evidence of features [N,P,W] by the rows [521,W] and biases [521] of AudioSet's names."""
    index = {name: at for at, name in enumerate(audioset_names())}
    names = [[index[name] for name in each.audioset] for each in find_classes(classes)]
    noises = [index[name] for name in NOISES]
    heard, noise = [], []
    for part in torch.from_numpy(features).split(256):
        logits = part.float() @ rows.T + biases
        heard.append(torch.stack([logits[..., each].amax(dim=-1) for each in names], dim=-1))
        noise.append(logits[..., noises].amax(dim=-1))
    return Evidence(torch.cat(heard), torch.cat(noise))


def presence(heard: Tensor, noise: Tensor) -> Tensor:
    """Compute log-odds [N,K] of heard [N,P,K] and noise [N,P], as WorldLocalizer does."""
    gated = heard - NOISE_WEIGHT * nn.functional.relu(noise[..., None] + NOISE_LEAD - heard)
    return gated.topk(min(LOUDEST, gated.shape[1]), dim=1).values.mean(dim=1)


def fit_rows(
    features: NDArray[np.float16], evidence: Evidence, heard: NDArray[np.bool_], config: FitConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit features [N,P,W] to which classes are heard [N,K]; returns what rows [K,W] and biases [K] gain."""
    generator = torch.Generator().manual_seed(config.seed)
    held, labels = torch.from_numpy(features), torch.from_numpy(heard).float()
    mean, scale = _standard(held)
    count = labels.shape[1]
    steps, biases = torch.zeros(count, held.shape[2], requires_grad=True), torch.zeros(count, requires_grad=True)
    # where the threshold of all classes lies is no matter of the rows
    threshold = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([steps, biases, threshold], lr=config.learning_rate)
    weight = torch.tensor(config.positive_weight)
    for epoch in range(config.epochs):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - epoch / config.epochs)
        for chosen in torch.randperm(len(held), generator=generator).split(config.batch_size):
            moved = evidence.heard[chosen] + ((held[chosen].float() - mean) * scale) @ steps.T + biases
            odds = presence(moved, evidence.noise[chosen]) + threshold
            loss = 10 * nn.functional.binary_cross_entropy_with_logits(odds, labels[chosen], pos_weight=weight)
            loss = loss + config.ridge * (steps**2).sum() + config.bias_ridge * (biases**2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        rows = config.share * steps * scale
        return rows.numpy(), (config.share * biases - rows @ mean).numpy()


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [W] and scale [W]; features that hardly vary are not blown up."""
    flat = features.flatten(0, 1).float()
    deviation, mean = torch.std_mean(flat, dim=0)
    return mean, 1 / (deviation + 0.3 * deviation.mean())
