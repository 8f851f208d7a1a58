"""Lightning's Trainer for a run: its callbacks, its log of losses, and which of its warnings are kept back."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from avgn.runtime.documents import parse_json
from avgn.training.config import TrainConfig
from avgn.training.processes import Processes
from avgn.training.progress import TrainingProgress
from avgn.training.throughput import Throughput

LOSSES = "losses.jsonl"
CHECKPOINTS = "checkpoints"
THROUGHPUT = ("samples_per_second", "loader_wait")
# what Lightning warns of and nothing can or need be done about
UNWANTED = (
    "does not have many workers",
    "mid-epoch checkpoint",
    # a run may be shorter than an epoch, and Lightning's own calls may be out of date
    "smaller than the logging interval",
    "could not find the monitored key",
    "isinstance.treespec",
    "have no `val_dataloader`",
    # parts that are never trained
    "in eval mode at the start of training",
)


@contextmanager
def without_unwanted_warnings() -> Iterator[None]:
    """Keep back the warnings of UNWANTED."""
    with warnings.catch_warnings():
        for text in UNWANTED:
            warnings.filterwarnings("ignore", message=f".*{text}.*")
        yield


class LossLog(Callback):
    """Appends every step's losses to a file; a resumed run first drops the lines that it will write again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.path.exists():
            lines = [line for line in self.path.read_text().splitlines() if _step_of(line) < trainer.global_step]
            self.path.write_text("".join(line + "\n" for line in lines))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        values = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") and name.removeprefix("train/") not in THROUGHPUT
        }
        with self.path.open("a") as file:
            file.write(json.dumps({"step": trainer.global_step - 1} | values) + "\n")


def build_trainer(
    output: Path,
    training: TrainConfig,
    processes: Processes,
    *,
    validates: bool,
    staged: bool,
    total_steps: int,
    throughput: Throughput,
    progress: bool | None,
) -> Trainer:
    """Build the Trainer that writes OUT/checkpoints, OUT/losses.jsonl and TensorBoard logs.

    `validates`: there are scenes to validate on. `staged`: some steps leave parameters without a gradient.
    `progress`: False for a run that says nothing while it trains.
    """
    callbacks: list[Callback] = [LossLog(output / LOSSES), throughput, *_checkpoints(output, training, validates)]
    if progress is not False:
        callbacks.append(TrainingProgress(total_steps))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return Trainer(
        **processes.trainer_options(unused=staged),
        default_root_dir=output,
        max_epochs=training.epochs if training.steps is None else -1,
        max_steps=-1 if training.steps is None else training.steps,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.gradient_clip or None,
        precision=training.precision,
        callbacks=callbacks,
        logger=TensorBoardLogger(output, name="tensorboard", version=""),
        check_val_every_n_epoch=training.validate_epochs,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _checkpoints(output: Path, training: TrainConfig, validates: bool) -> list[Callback]:
    folder = output / CHECKPOINTS
    last = ModelCheckpoint(
        dirpath=folder, filename="last", every_n_train_steps=training.checkpoint_steps, enable_version_counter=False
    )
    if not validates:
        return [last]
    best = ModelCheckpoint(
        dirpath=folder, filename="best", monitor="val/loss", save_weights_only=True, enable_version_counter=False
    )
    return [last, best]


def _step_of(line: str) -> int:
    try:
        return int(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize
