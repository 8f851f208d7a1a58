"""Trains a localizer from manifests and writes its checkpoint."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer

from avgn.checkpoint import load_model, save_model
from avgn.config import Config
from avgn.data.batch import collate
from avgn.data.dataset import AudioVisualDataset
from avgn.data.loading import build_loader
from avgn.data.sampling import ordered_batches
from avgn.data.shards import Shards
from avgn.encoders import LEAST_CHANNELS_LAST, load_audio_weights, load_visual_weights
from avgn.engine import TorchEngine
from avgn.evaluation.calibration import calibrate
from avgn.model import LocalizerModel, build_model
from avgn.runtime.documents import shown
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.manifest import Manifest
from avgn.runtime.outputs import held_folder
from avgn.training.allocator import keep_freed_memory
from avgn.training.checks import CONFIG, check_output, check_resumed, check_settings
from avgn.training.config import TrainConfig
from avgn.training.hooks import hooks_of
from avgn.training.module import AVGNModule
from avgn.training.prefetch import OnDevice
from avgn.training.processes import Processes
from avgn.training.resting import is_frozen
from avgn.training.source import TrainingSource
from avgn.training.stages import looking
from avgn.training.throughput import Throughput
from avgn.training.trainer import CHECKPOINTS, build_trainer, without_unwanted_warnings
from avgn.training.worker_errors import of_worker
from avgn.types import Batch

log = logging.getLogger(__name__)

# entries that say what weights mean, whatever their sizes
SAME_IN_INIT = ("system", "encoders", "tokens", "frontend", "sample_rate", "classes")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is ready to begin: its scenes, its model and its trainer."""

    config: Config
    training: TrainConfig
    output: Path
    source: TrainingSource
    validation: Manifest | None
    held_out: AudioVisualDataset | None
    """The validation scenes."""
    module: AVGNModule
    trainer: Trainer
    throughput: Throughput
    processes: Processes
    resume: bool
    fresh: bool
    """Whether the folder was empty, and may be so again if nothing comes of it."""

    @property
    def last(self) -> Path:
        """What a resumed run goes on from."""
        return self.output / CHECKPOINTS / "last.ckpt"


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
    processes = Processes.of_environment()
    # one run at a time; the processes of one run share the folder
    with held_folder(output) if processes.first else nullcontext():
        run = prepare(
            config,
            manifest,
            validation,
            Path(output),
            training or TrainConfig(),
            resume=resume,
            progress=progress,
            processes=processes,
        )
        fit(run)
        return finish(run) if run.trainer.is_global_zero else run.output


def prepare(
    config: Config,
    manifest: Manifest | Shards,
    validation: Manifest | None,
    output: Path,
    training: TrainConfig,
    *,
    resume: bool,
    progress: bool | None,
    processes: Processes,
) -> Run:
    """Check everything that a run needs, then build its model and its trainer and begin its folder."""
    if resume and not (output / CHECKPOINTS / "last.ckpt").is_file():
        raise InputError(f"{output / CHECKPOINTS / 'last.ckpt'} does not exist: train without `resume` first")
    check_settings(config, training, validation)
    if processes.first:
        # the others would find what the first one writes
        check_output(output, resume=resume)
    if resume:
        check_resumed(output, config, training)
    source = TrainingSource(manifest, config, training, processes)
    held_out = None
    if validation is not None:
        held_out = AudioVisualDataset(
            validation, config, train=False, cache=training.cache, audio_cache=training.audio_cache_folder
        )
    lightning.seed_everything(training.seed, verbose=False)
    model, used = _start_model(config, training, resume=resume)
    hooks = hooks_of(model, used)
    output.mkdir(parents=True, exist_ok=True)
    fresh = not any(output.iterdir())
    if processes.first:
        write_whole(output / CONFIG, json.dumps(config.to_dict(), indent=2) + "\n")
    total_steps = count_steps(training, len(source))
    throughput = Throughput()
    return Run(
        config=config,
        training=training,
        output=output,
        source=source,
        validation=validation,
        held_out=held_out,
        module=AVGNModule(model, training, total_steps, hooks, source.survey),
        trainer=build_trainer(
            output,
            training,
            processes,
            validates=validation is not None,
            staged=bool(hooks.stage_shares),
            total_steps=total_steps,
            throughput=throughput,
            progress=progress,
        ),
        throughput=throughput,
        processes=processes,
        resume=resume,
        fresh=fresh,
    )


def _start_model(config: Config, training: TrainConfig, *, resume: bool) -> tuple[LocalizerModel, str]:
    """Return the model with the weights that it starts from, and what they are called."""
    model = build_model(config)
    used = "a checkpoint"
    if not resume:
        used = _load_weights(model, training)
        log.info("visual encoder starts from %s", used)
    if training.channels_last and min(config.width_visual, config.width_audio) >= LEAST_CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    return model, used


def _load_weights(model: LocalizerModel, training: TrainConfig) -> str:
    """Load what the model starts from; returns what it is called."""
    config = model.config
    if training.init is not None:
        start = load_model(training.init)
        changed = [name for name in SAME_IN_INIT if getattr(start.config, name) != getattr(config, name)]
        if changed:
            raise InputError(
                f"checkpoint {training.init} has other {', '.join(changed)} than this run "
                f"({shown(getattr(start.config, changed[0]))}): give one of the same"
            )
        try:
            model.load_state_dict(start.state_dict())
        except RuntimeError:
            raise InputError(
                f"checkpoint {training.init} has other sizes than this run: take its preset and its `--model` options"
            ) from None
        return f"checkpoint {training.init}"
    if config.encoders == "world":
        return _load_world(model, training)
    try:
        used = load_visual_weights(model.visual_encoder, training.visual_weights)
        if training.audio_weights is not None:
            load_audio_weights(model.audio_encoder, training.audio_weights)
    except ValueError as error:
        raise InputError(str(error)) from None
    return used


def _load_world(model: LocalizerModel, training: TrainConfig) -> str:
    from avgn.world.start import start_published

    if training.visual_weights not in ("imagenet", "random") or training.audio_weights is not None:
        raise InputError("visual_weights and audio_weights are files of ResNets: leave them out with encoders world")
    if training.visual_weights == "random":
        return "random"
    return start_published(model, rounded=is_frozen(model.config, training))


def fit(run: Run) -> None:
    """Train until the steps are done. A run of which nothing is left to go on with leaves its folder empty."""
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    try:
        with without_unwanted_warnings():
            _fit(run)
    except SystemExit:
        # Lightning leaves by itself after an interrupt
        if not run.trainer.interrupted:
            raise
    except BaseException as error:
        if run.fresh and run.processes.first and not run.last.is_file():
            _empty(run.output)
        said = of_worker(error)
        if said is None:
            raise
        raise said from None
    if run.trainer.interrupted:
        raise KeyboardInterrupt
    if not joined:
        run.processes.part()


def _fit(run: Run) -> None:
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        keep_freed_memory()
    batches: Any = run.source.loader(lambda: run.trainer.global_step, pin=on_gpu)
    validation = None
    if run.held_out is not None:
        validation = build_loader(run.held_out, ordered_batches(len(run.held_out), run.training.batch_size))
    run.trainer.fit(
        run.module,
        OnDevice(batches) if on_gpu else batches,
        validation,
        ckpt_path=run.last if run.resume else None,
        weights_only=True,
    )


def finish(run: Run) -> Path:
    """Choose the weights that are kept, calibrate their thresholds and write the checkpoint; returns its folder."""
    module, training = run.module, run.training
    if run.validation is not None and training.keep == "best":
        _restore(module, run.output / CHECKPOINTS / "best.ckpt")
    shown = run.source.survey() if run.held_out is None else _held_out_batches(run.held_out, training.batch_size)
    with looking(module.model.cpu()):
        module.hooks.end(shown)
    model = module.model.to(memory_format=torch.contiguous_format).eval()
    if run.validation is not None and model.has_presence:
        model.thresholds = calibrate(TorchEngine(model), run.validation)
    facts = {
        "settings": training.to_dict(),
        "steps": run.trainer.global_step,
        "skipped_steps": module.skipped,
        "processes": run.trainer.world_size,
        "throughput": run.throughput.facts(),
    }
    return save_model(model, run.output, training=facts)


def _empty(folder: Path) -> None:
    """Remove what a run put into its folder; the folder may be somebody else's."""
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)


def _held_out_batches(scenes: AudioVisualDataset, batch_size: int) -> Iterator[Batch]:
    """Yield the validation scenes in order."""
    for keys in ordered_batches(len(scenes), batch_size):
        yield collate([scenes[key] for key in keys], scenes.config.num_classes)


def count_steps(training: TrainConfig, batches: int) -> int:
    """Optimiser steps of a run whose epochs have so many batches."""
    if training.steps is not None:
        return training.steps
    return training.epochs * -(-batches // training.accumulate)


def _restore(module: AVGNModule, path: Path) -> None:
    if not path.is_file():
        log.warning("no validation epoch was finished: the last weights are kept")
        return
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    if int(state["stages.entered"]) < len(module.hooks.stage_shares):
        log.warning("no validation epoch of the last stage was finished: the last weights are kept")
        return
    module.load_state_dict(state)
