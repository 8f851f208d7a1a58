"""Trains a localizer from manifests and writes its checkpoint."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from avgn.checkpoint import save_model
from avgn.config import Config
from avgn.data import AudioVisualDataset, Batch, build_loader, collate, ordered_batches
from avgn.data.shards import Shards
from avgn.encoders import LEAST_CHANNELS_LAST, load_audio_weights, load_visual_weights
from avgn.engine import TorchEngine
from avgn.evaluation.calibration import calibrate
from avgn.model import build_model
from avgn.runtime.documents import parse_json, read_json
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.manifest import Manifest
from avgn.runtime.outputs import held_folder
from avgn.systems import AVGN
from avgn.training.allocator import keep_freed_memory
from avgn.training.compiling import check_compiler
from avgn.training.config import TrainConfig
from avgn.training.module import AVGNModule
from avgn.training.prefetch import OnDevice
from avgn.training.processes import Processes
from avgn.training.progress import TrainingProgress
from avgn.training.source import TrainingSource
from avgn.training.stages import looking
from avgn.training.throughput import Throughput
from avgn.training.worker_errors import of_worker
from avgn.weights import read_torch

log = logging.getLogger(__name__)

LOSSES = "losses.jsonl"
CHECKPOINTS = "checkpoints"
CONFIG = "run.json"
THROUGHPUT = ("samples_per_second", "loader_wait")


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


def train(
    config: Config,
    manifest: Manifest | Shards,
    validation: Manifest | None,
    output: str | os.PathLike[str],
    training: TrainConfig | None = None,
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> Path:
    """Train on the scenes of a manifest or of shards.

    Writes OUT/model.safetensors, OUT/config.json, OUT/checkpoints, OUT/losses.jsonl and TensorBoard logs.

    With a validation manifest, the weights of the lowest validation loss are kept (or the last, by `training.keep`)
    and presence thresholds are calibrated on it. `resume` goes on from OUT/checkpoints/last.ckpt.
    `progress`: what is said on standard error while it trains (a bar on a terminal, plain lines elsewhere); False:
    nothing. Raises InputError for manifests, folders or settings that can't be used, FailureError when training
    diverges.
    """
    # one run at a time; the processes of one run share the folder
    with held_folder(output) if Processes.of_environment().first else nullcontext():
        return _train(config, manifest, validation, Path(output), training or TrainConfig(), resume, progress)


def _train(
    config: Config,
    manifest: Manifest | Shards,
    validation: Manifest | None,
    output: Path,
    training: TrainConfig,
    resume: bool,
    progress: bool | None,
) -> Path:
    if config.tokens != "learned":
        raise InputError(f"{config.name} is made from published weights and is not trained: use another preset")
    last = output / CHECKPOINTS / "last.ckpt"
    if resume and not last.is_file():
        raise InputError(f"{last} does not exist: train without --resume first")
    processes = Processes.of_environment()
    if training.precision == "16-mixed" and not torch.cuda.is_available():
        raise InputError("precision 16-mixed needs a GPU: use bf16-mixed or 32-true on this machine")
    if training.compile:
        check_compiler()
        if torch.cuda.is_available():
            log.warning("--compile gave gradients that were not finite on an H200: leave it out if training stops so")
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if processes.first:
        # the others would find what the first one writes
        _check_output(output, resume)
    if resume:
        _check_resumed(last, config)
    if validation is not None and not validation.items:
        raise InputError(f"validation manifest {validation.path} has no items: give another one, or none")
    if config.system != AVGN and training.auxiliary > 0:
        raise InputError(f"auxiliary heads are avgn's, the system is {config.system}: leave --auxiliary out")
    source = TrainingSource(manifest, config, training, processes)
    held_out = None
    if validation is not None:
        held_out = AudioVisualDataset(
            validation, config, train=False, cache=training.cache, audio_cache=training.audio_cache_folder
        )

    lightning.seed_everything(training.seed, verbose=False)
    model = build_model(config)
    used = "a checkpoint"
    if not resume:
        try:
            used = load_visual_weights(model.visual_encoder, training.visual_weights)
            if training.audio_weights is not None:
                load_audio_weights(model.audio_encoder, training.audio_weights)
        except ValueError as error:
            raise InputError(str(error)) from None
        log.info("visual encoder starts from %s", used)
    model.begin_training(used)
    if training.channels_last and min(config.width_visual, config.width_audio) >= LEAST_CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    output.mkdir(parents=True, exist_ok=True)
    fresh = not any(output.iterdir())
    if processes.first:
        write_whole(output / CONFIG, json.dumps(config.to_dict(), indent=2) + "\n")
    throughput = Throughput()
    total_steps = _total_steps(training, len(source))
    trainer = _build_trainer(
        output,
        training,
        validation is not None,
        progress,
        processes,
        throughput,
        staged=bool(model.stage_shares),
        total_steps=total_steps,
    )
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        keep_freed_memory()
    module = AVGNModule(model, training, total_steps, source.survey)
    batches: Any = source.loader(lambda: trainer.global_step, pin=on_gpu)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*mid-epoch checkpoint.*")
        # a run may be shorter than an epoch, and Lightning's own calls may be out of date
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        # parts that are never trained
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        try:
            trainer.fit(
                module,
                OnDevice(batches) if on_gpu else batches,
                build_loader(held_out, ordered_batches(len(held_out), training.batch_size)) if held_out else None,
                ckpt_path=last if resume else None,
                weights_only=True,
            )
        except SystemExit:
            # Lightning leaves by itself after an interrupt
            if not trainer.interrupted:
                raise
        except BaseException as error:
            if fresh and processes.first and not last.is_file():
                _empty(output)
            said = of_worker(error)
            if said is None:
                raise
            raise said from None
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not joined:
        processes.part()
    if not trainer.is_global_zero:
        return output
    if validation is not None and training.keep == "best":
        _restore(module, output / CHECKPOINTS / "best.ckpt")
    shown = source.survey() if held_out is None else _held_out_batches(held_out, training.batch_size)
    with looking(module.model.cpu()):
        module.model.end_training(shown)
    model = module.model.to(memory_format=torch.contiguous_format).eval()
    if validation is not None and model.has_presence:
        model.thresholds = calibrate(TorchEngine(model), validation)
    facts = {
        "settings": vars(training),
        "steps": trainer.global_step,
        "skipped_steps": module.skipped,
        "processes": trainer.world_size,
        "throughput": throughput.facts(),
    }
    return save_model(model, output, training=facts)


def _empty(folder: Path) -> None:
    """Remove what a run put into its folder; the folder may be somebody else's."""
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)


def _check_output(output: Path, resume: bool) -> None:
    if not resume and any(output.iterdir()):
        raise InputError(f"output folder {output} is not empty: choose another one, or pass --resume to go on")


def _check_resumed(last: Path, config: Config) -> None:
    """Whether the interrupted run trained this configuration, and its checkpoint can be read."""
    path = last.parents[1] / CONFIG
    for written in (last.parents[1] / LOSSES, last, last.with_name("best.ckpt")):
        if written.is_symlink() or (written.exists() and written.stat().st_nlink > 1):
            raise InputError(f"{written} is a link, and a resumed run would write where it leads: put the file there")
    try:
        before = Config.from_dict(read_json(path, "run", "train anew"))
        read_torch(last)
    except Exception as error:
        raise InputError(f"{last.parent} can't be resumed from ({error.__class__.__name__}): train anew") from None
    if before.classes != config.classes:
        raise InputError(
            f"{last} was trained on the classes {', '.join(before.classes)}, the manifest has "
            f"{', '.join(config.classes)}: they must be the same, in the same order"
        )
    changed = [name for name, value in before.to_dict().items() if config.to_dict()[name] != value]
    if changed:
        raise InputError(f"{last} was trained with another {', '.join(changed)}: resume with the same configuration")


def _build_trainer(
    output: Path,
    training: TrainConfig,
    validates: bool,
    progress: bool | None,
    processes: Processes,
    throughput: Throughput,
    *,
    staged: bool,
    total_steps: int,
) -> Trainer:
    folder = output / CHECKPOINTS
    callbacks: list[Callback] = [
        LossLog(output / LOSSES),
        throughput,
        ModelCheckpoint(
            dirpath=folder, filename="last", every_n_train_steps=training.checkpoint_steps, enable_version_counter=False
        ),
    ]
    if validates:
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder,
                filename="best",
                monitor="val/loss",
                save_weights_only=True,
                enable_version_counter=False,
            )
        )
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


def _held_out_batches(scenes: AudioVisualDataset, batch_size: int) -> Iterator[Batch]:
    """The validation scenes in order."""
    for keys in ordered_batches(len(scenes), batch_size):
        yield collate([scenes[key] for key in keys], scenes.config.num_classes)


def _total_steps(training: TrainConfig, batches: int) -> int:
    if training.steps is not None:
        return training.steps
    return training.epochs * -(-batches // training.accumulate)


def _restore(module: AVGNModule, path: Path) -> None:
    if not path.is_file():
        log.warning("no validation epoch was finished: the last weights are kept")
        return
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    if int(state["stages.entered"]) < len(module.model.stage_shares):
        log.warning("no validation epoch of the last stage was finished: the last weights are kept")
        return
    module.load_state_dict(state)


def _step_of(line: str) -> int:
    try:
        return int(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize
