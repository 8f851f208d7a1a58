"""How fast training goes, and how much of its time it waits for data."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

# the first steps start workers and choose algorithms
WARM_UP = 3


class Throughput(Callback):
    """Logs `train/samples_per_second` of all processes and `train/loader_wait`, the share of time spent waiting."""

    def __init__(self) -> None:
        self._end: float | None = None
        self._begin = 0.0
        self._steps = 0
        self._samples = 0
        self._waited = 0.0
        self._worked = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begin = time.perf_counter()
        if self._end is not None and self._steps >= WARM_UP and batch_idx > 0:
            self._waited += self._begin - self._end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._end = time.perf_counter()
        self._steps += 1
        if self._steps <= WARM_UP:
            return
        self._worked += self._end - self._begin
        self._samples += len(batch.image) * trainer.world_size
        if self._steps % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for name, value in self.facts().items():
                pl_module.log(f"train/{name}", value, batch_size=1)

    def facts(self) -> dict[str, float]:
        """Return what was measured, nothing before the first steps are over."""
        total = self._waited + self._worked
        if total <= 0:
            return {}
        return {
            "samples_per_second": round(self._samples / total, 3),
            "loader_wait": round(self._waited / total, 4),
        }
