"""32 easy scenes as one batch: a coloured square that sounds and one that doesn't; and a short training on them.

Legend: B batch, T samples, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from avgn.config import Config, preset
from avgn.model import LocalizerModel, build_model
from avgn.training.hooks import hooks_of
from avgn.training.stages import Stages
from avgn.types import Batch, Labels
from tests.squares import CLASSES, COLORS, TONES

SIDE = 64
RATE = 22_050
SECONDS = 0.2
SMALL: dict[str, Any] = {
    "classes": CLASSES,
    "image_size": (SIDE, SIDE),
    "visual_stride": 16,
    "width_visual": 8,
    "width_audio": 8,
    "dim": 32,
    "depth": 1,
    "window_seconds": SECONDS,
}


def small(system: str, **options: Any) -> Config:
    """A small configuration of a system."""
    return preset("avgn-tiny", system=system, options=options, **SMALL)


def scenes(count: int = 32, seed: int = 0, *, silent: bool = True) -> tuple[Batch, NDArray[np.bool_]]:
    """The batch, and where the sounding square of each scene is: [B,H,W]."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(90, 130, (count, SIDE, SIDE, 3)).astype(np.uint8)
    sounds = 0.01 * rng.standard_normal((count, round(SECONDS * RATE)))
    truth = np.zeros((count, SIDE, SIDE), dtype=bool)
    sounding = torch.zeros(count, len(CLASSES))
    visible = torch.zeros(count, len(CLASSES))
    time = np.arange(sounds.shape[1]) / RATE
    for n in range(count):
        kinds = [n % 4, (n + 1 + n // 4 % 3) % 4][: 1 + silent]
        corners = rng.permutation(4)
        for place, kind in enumerate(kinds):
            top, left = (int(32 * q + rng.integers(0, 9)) for q in divmod(int(corners[place]), 2))
            frames[n, top : top + 24, left : left + 24] = COLORS[kind]
            visible[n, kind] = 1
            if place == 0:
                truth[n, top : top + 24, left : left + 24] = True
                sounding[n, kind] = 1
                sounds[n] += 0.2 * np.sin(2 * np.pi * TONES[kind] * time + rng.uniform(0, 6))
    labels = Labels(
        sounding=sounding,
        visible=visible,
        order=sounding.argmax(dim=1, keepdim=True),
        mask=torch.ones(count, 1, dtype=torch.bool),
    )
    waveform = torch.from_numpy(sounds.astype(np.float32))
    return Batch(image=torch.from_numpy(frames), waveform=waveform, labels=labels), truth


def overfit(config: Config, batch: Batch, steps: int, rate: float = 3e-3) -> tuple[LocalizerModel, list[float]]:
    """A model trained on one batch, in evaluation mode, and the localization loss of every step.

    Pictures are shifted around their edges at random: places and the grain of a picture can't be learnt by heart.
    """
    torch.manual_seed(0)
    model = build_model(config).train()
    hooks = hooks_of(model)
    stages = Stages()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    found = []
    for step in range(steps):
        stages.begin_step(hooks, step, steps, step // 10, lambda: [batch])
        shift = [int(side) for side in torch.randint(SIDE, (2,))]
        audio, image = model(*hooks.prepare(batch.waveform, batch.image.roll(shift, (1, 2))))
        losses = hooks.losses(audio, image, batch.labels)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        found.append(float(losses.localization.detach()))
    model.eval()
    with torch.no_grad():
        hooks.end([batch])
    return model, found


@torch.no_grad()
def precision(model: LocalizerModel, batch: Batch, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean average precision of the maps, and of a blob in the centre.

    Of maps that belong to classes the sounding class's counts; of unnamed ones the best.
    """
    maps = model.localize(*model(batch.waveform, batch.image))
    maps = torch.nn.functional.interpolate(maps, (SIDE, SIDE), mode="bilinear", align_corners=False)
    ramp = np.abs(np.arange(SIDE) - (SIDE - 1) / 2)
    blob = -np.hypot(ramp[:, None], ramp[None, :])
    found, floor = [], []
    for n, mask in enumerate(truth):
        chosen = [int(batch.labels.order[n, 0])] if model.has_presence else range(maps.shape[1])
        found.append(max(average_precision_score(mask.ravel(), maps[n, k].numpy().ravel()) for k in chosen))
        floor.append(average_precision_score(mask.ravel(), blob.ravel()))
    return float(np.mean(found)), float(np.mean(floor))
