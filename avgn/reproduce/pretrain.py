"""Trains encoders to tell classes apart, which is to narrow models what pretrained weights are to full-size ones.

The systems of the papers start from ImageNet weights, which exist for one width and must be fetched. Narrow models of
every system start from the same weights of both encoders, made here of solos: each by itself, so that nothing about
which picture goes with which sound is learned.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.manifest import Manifest

if TYPE_CHECKING:
    from avgn.config import Config

log = logging.getLogger(__name__)

STEPS_PER_REPORT = 500


@dataclass(frozen=True, kw_only=True)
class PretrainSpec:
    """Says what is imported to learn from (`importer`, `root`, `split`), and how to learn: AdamW with a cosine
    schedule."""

    importer: str
    root: str
    split: str = "train"
    visual_steps: int = 2500
    audio_steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("visual_steps", "audio_steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of pretraining must be above 0, got {getattr(self, name)}")


def pretrain(config: Config, manifest: Manifest, spec: PretrainSpec, folder: Path, seed: int) -> None:
    """Write FOLDER/visual.safetensors and FOLDER/audio.safetensors, the weights of both encoders' ResNets.

    Both classify solos by a linear layer on their pooled features (mean over the picture, maximum over the sound).
    Raises InputError when there are too few items of one source.
    """
    import torch
    from safetensors.torch import save
    from torch import nn

    from avgn.encoders import LEAST_CHANNELS_LAST
    from avgn.model import build_model
    from avgn.training import TrainConfig
    from avgn.training.processes import Processes
    from avgn.training.source import TrainingSource

    solos = replace(manifest, items=tuple(item for item in manifest.items if len(item.sources) == 1))
    if len(solos.items) < spec.batch_size:
        raise InputError(
            f"{manifest.path} has {len(solos.items)} items of one source, fewer than a batch of {spec.batch_size}: "
            "import more of the data set"
        )
    torch.manual_seed(seed)
    model = build_model(config).train()
    for encoder, width in ((model.visual_encoder, config.width_visual), (model.audio_encoder, config.width_audio)):
        if width >= LEAST_CHANNELS_LAST:
            encoder.to(memory_format=torch.channels_last)
    training = TrainConfig.from_options(batch_size=spec.batch_size, seed=seed, cache=True, color=0.3)
    source = TrainingSource(solos, config, training, Processes.of_environment())
    for kind, steps in (("visual", spec.visual_steps), ("audio", spec.audio_steps)):
        backbone = model.visual_encoder.backbone if kind == "visual" else model.audio_encoder.backbone
        head = nn.Linear(backbone.out_channels, config.num_classes)
        optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=spec.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        right = 0.0
        taken = {"steps": 0}
        loader = source.loader(partial(taken.__getitem__, "steps"))
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        for step, batch in enumerate(itertools.islice(batches, steps), start=1):
            taken["steps"] = step
            target = batch.labels.sounding.argmax(dim=1)
            with torch.autocast("cpu", torch.bfloat16):
                if kind == "visual":
                    pooled = backbone(model.normalize(batch.image)).mean(dim=(2, 3))
                else:
                    pooled = backbone(model.frontend(batch.waveform)).amax(dim=(2, 3))
                logits = head(pooled).float()
            loss = nn.functional.cross_entropy(logits, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            right = 0.98 * right + 0.02 * float((logits.argmax(dim=1) == target).float().mean())
            if step % STEPS_PER_REPORT == 0 or step == steps:
                log.info("pretraining, %s, step %d: %.0f %% of the last solos named right", kind, step, 100 * right)
        state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
        write_whole(folder / f"{kind}.safetensors", save(state))
