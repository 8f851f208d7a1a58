"""Trains and scores the runs that rows are made of, each by itself, in this process or in others beside it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avgn.runtime.documents import read_json
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.files import write_whole
from avgn.runtime.interrupts import end_with_parent
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.runtime.texts import PlainFormatter

if TYPE_CHECKING:
    from avgn.config import Config
    from avgn.training import TrainConfig

log = logging.getLogger(__name__)

SCORES = "scores.json"
BOUNDS = ("metrics", "ci95", "floor", "ceiling")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Describes one training and its scores, kept in the folder `output`; train, held and test are paths of
    manifests."""

    name: str
    output: Path
    config: Config
    training: TrainConfig
    train: Path
    held: Path
    test: Path
    protocols: tuple[str, ...]
    bootstrap: int

    @property
    def seed(self) -> int:
        """Return the seed of weights, batches and bootstrap samples."""
        return self.training.seed


def run_all(runs: list[Run], parallel: int) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Run `parallel` at a time; yield every run with its scores {"seconds", "results"}, in the order in which they end.

    "seconds" of a training that was stopped and went on is None.
    """
    if parallel == 1:
        for run in runs:
            yield run, run_one(run)
        return
    # PyTorch's threads don't survive a fork
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // parallel)
    pool = ProcessPoolExecutor(parallel, mp_context=context, initializer=_begin, initargs=(threads,))
    try:
        pending = {pool.submit(run_one, run): run for run in runs}
        for done in as_completed(pending):
            yield pending[done], done.result()
    except BrokenProcessPool:
        raise FailureError(
            "a process that trained a row was killed, perhaps because memory ran out: choose a smaller --parallel and "
            "start the same command again, which continues"
        ) from None
    except BaseException:
        # the pool has no public way to stop what runs; from Python 3.14 on there is terminate_workers
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    import torch

    # killing the command must not leave trainings running
    end_with_parent()
    torch.set_num_threads(threads)
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def run_one(run: Run) -> dict[str, Any]:
    """Train and score a run, as far as that isn't done yet."""
    from avgn.checkpoint import FACTS, load_model
    from avgn.engine import TorchEngine
    from avgn.evaluation import evaluate
    from avgn.training.fit import train

    kept = run.output / SCORES
    if kept.is_file():
        found: dict[str, Any] = read_json(kept, "scores", "remove the file")
        return found
    begin = time.perf_counter()
    seconds: dict[str, float | None] = {"training": None}
    # a checkpoint's last file
    if not (run.output / FACTS).is_file():
        log.info("training %s, seed %d", run.name, run.seed)
        resume = (run.output / "checkpoints" / "last.ckpt").is_file()
        if not resume:
            # left by a run that was stopped before its first checkpoint
            shutil.rmtree(run.output, ignore_errors=True)
        train(
            run.config,
            read_manifest(run.train),
            read_manifest(run.held),
            run.output,
            run.training,
            resume=resume,
            progress=False if multiprocessing.parent_process() is not None else None,
        )
        if not resume:
            seconds["training"] = time.perf_counter() - begin
    begin = time.perf_counter()
    engine = TorchEngine(load_model(run.output))
    modes = ("given", "predicted") if engine.info.has_presence else ("given",)
    results = evaluate(
        engine, read_manifest(run.test), run.protocols, modes, bootstrap=run.bootstrap, seed=run.seed, workers=1
    )
    found = {"seconds": seconds | {"scoring": time.perf_counter() - begin}, "results": results}
    write_whole(kept, json.dumps(found) + "\n")
    return found


def rows_of(
    name: str, published: str | None, runs: dict[int, dict[str, Any]], metrics: dict[str, str]
) -> list[dict[str, Any]]:
    """Make the rows of one system, one a protocol and way to choose classes: the mean over its runs {seed: scores}.

    metrics: {shown: ours}. "ci95" is the mean of the runs' intervals, "std" the deviation between seeds (None for one).
    Raises InputError for a metric that no result holds.
    """
    first = next(iter(runs.values()))["results"]
    known = dict.fromkeys(metric for result in first for metric in result["metrics"])
    for ours in metrics.values():
        if ours not in known:
            raise InputError(f"metric {ours!r} is in no result of row {name}: use some of {', '.join(known)}")
    found = []
    for place, result in enumerate(first):
        per_seed = {
            seed: {bound: _pick(run["results"][place].get(bound, {}), metrics) for bound in BOUNDS}
            for seed, run in runs.items()
        }
        values = {shown: _mean([own["metrics"][shown] for own in per_seed.values()]) for shown in metrics}
        found.append(
            {
                "row": name,
                "published": published,
                "protocol": result["protocol"],
                "classes": result["classes"],
                "maps": result["maps"],
                "items": result["items"],
                "values": values,
                "ci95": {shown: _interval([own["ci95"][shown] for own in per_seed.values()]) for shown in metrics},
                "std": {shown: _deviation([own["metrics"][shown] for own in per_seed.values()]) for shown in metrics},
                "floor": per_seed[min(per_seed)]["floor"],
                "ceiling": per_seed[min(per_seed)]["ceiling"],
                "seeds": {str(seed): own["metrics"] for seed, own in per_seed.items()},
                "seconds": {str(seed): run["seconds"] for seed, run in runs.items()},
            }
        )
    return found


def _pick(values: dict[str, Any], metrics: dict[str, str]) -> dict[str, Any]:
    return {shown: values.get(ours) for shown, ours in metrics.items()}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _deviation(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _interval(intervals: list[list[float] | None]) -> list[float] | None:
    known = [interval for interval in intervals if interval is not None]
    return [float(end) for end in np.mean(known, axis=0)] if known else None


def write_split(manifest: Manifest, folder: Path, name: str) -> Path:
    """Write the manifest into the folder, for other processes."""
    from avgn.runtime.manifest import write_manifest

    path = folder / f"{name}.jsonl"
    write_manifest(path, manifest.classes, manifest.items)
    return path
