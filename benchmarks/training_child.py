"""One variant of `benchmarks.training`: a step for each line of standard input, which holds the threads to use.

python -m benchmarks.training_child NAME MANIFEST OUTPUT
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer

from avgn.config import preset
from avgn.data.dataset import AudioVisualDataset
from avgn.data.loading import build_loader
from avgn.data.sampling import SeededBatches
from avgn.machine import most_resident_mb
from avgn.model import build_model
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.training import TrainConfig, fit
from avgn.training.throughput import Throughput
from avgn.types import Batch
from benchmarks.training import BATCH, VARIANTS

MAX_STEPS = 1000


class Turn:
    """Waits for a line before each step, and tells what the step took after it."""

    def __init__(self) -> None:
        self._begin = self._cpu = 0.0
        self.told = 0

    def wait(self) -> None:
        line = sys.stdin.readline()
        if not line.strip():
            os._exit(0)
        torch.set_num_threads(int(line))
        self._begin, self._cpu = time.perf_counter(), time.process_time()

    def tell(self, loss: float, loading: float = 0.0) -> None:
        answer = {
            "seconds": time.perf_counter() - self._begin,
            "cpu": time.process_time() - self._cpu,
            "loss": loss,
            "loading": loading,
            "peak_mb": round(most_resident_mb()),
        }
        self.told += 1
        print(json.dumps(answer), flush=True)


class Turns(Throughput):
    """Takes the place of the trainer's own callback: everything that a step of `avgn train` does lies between turns."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = Turn()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.turn.wait()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.turn.tell(float(trainer.callback_metrics["train/loss"]))
        self.turn.wait()


def train(manifest: Manifest, output: Path, options: dict[str, Any]) -> None:
    """`avgn train` with its defaults, and these options."""
    fit.Throughput = Turns  # type: ignore[attr-defined, misc]
    settings = TrainConfig(batch_size=BATCH, steps=MAX_STEPS, visual_weights="random", **options)
    fit.train(preset("avgn-resnet18", classes=manifest.classes), manifest, None, output, settings, progress=False)


def plain(manifest: Manifest) -> None:
    """The loop as it is usually written."""
    config = preset("avgn-resnet18", classes=manifest.classes)
    lightning.seed_everything(0, verbose=False)
    model = build_model(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    data = AudioVisualDataset(manifest, config, train=True)
    turn = Turn()
    batches = SeededBatches(len(data), BATCH, seed=0, position=lambda: turn.told)
    turn.wait()
    while True:
        begin = time.perf_counter()
        for batch in build_loader(data, batches):
            assert isinstance(batch, Batch)
            loading = time.perf_counter() - begin
            # drop-path draws what the trainer's does
            torch.manual_seed(turn.told)
            optimizer.zero_grad()
            audio, image = model(batch.waveform, batch.image)
            loss = model.losses(audio, image, batch.labels).total
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            turn.tell(loss.item(), loading)
            turn.wait()
            begin = time.perf_counter()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    name, manifest, output = sys.argv[1], read_manifest(sys.argv[2]), Path(sys.argv[3])
    if name == "plain":
        plain(manifest)
    else:
        train(manifest, output, VARIANTS[name])
