"""What `avgn train` says while it trains: one line, rewritten, on a terminal; plain lines now and then elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer

# seconds between two looks at the losses: each waits for the GPU
ON_TERMINAL = 0.5
ON_PAPER = 30.0
# steps before a speed is believed, and how long an old one counts, in seconds
WARM_UP = 2
MEMORY = 20.0
BAR = 24


class TrainingProgress(Callback):
    """Shows step, loss, speed and remaining time, and a line at each validation.

    On a terminal the first stands in one line with a bar; elsewhere there is a plain line every half minute, at the
    first step and at the last one.
    """

    def __init__(self, total_steps: int, output: TextIO | None = None, clock: Any = time.monotonic) -> None:
        self.total = total_steps
        self.output = sys.stderr if output is None else output
        self.on_terminal = self.output.isatty()
        self.clock = clock
        self._shown = -math.inf
        self._begin = 0.0
        self._first = 0
        self._last: tuple[float, int] | None = None
        self._speed = 0.0
        self._samples = 0
        self._width = 0
        self._best = math.inf
        self._validated = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where it begins."""
        self._begin, self._first = self.clock(), trainer.global_step
        if trainer.is_global_zero:
            resumed = f", from step {self._first} on" if self._first else ""
            self._line(f"training: {self.total} steps{resumed}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step where it is time."""
        step = trainer.global_step
        self._samples = len(batch.image) * trainer.world_size * trainer.accumulate_grad_batches
        self._measure(step)
        now = self.clock()
        due = now - self._shown >= (ON_TERMINAL if self.on_terminal else ON_PAPER)
        if trainer.is_global_zero and (due or step >= self.total):
            self._shown = now
            self._show(step, _number(trainer.callback_metrics.get("train/loss")))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: the time of a validation is not one of the steps."""
        self._validated = self.clock()
        if trainer.is_global_zero and self.on_terminal:
            self._rewrite(f"step {trainer.global_step}: validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line for each validation."""
        if self._last is not None:
            self._last = (self._last[0] + self.clock() - self._validated, self._last[1])
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        loss = _number(trainer.callback_metrics.get("val/loss"))
        note = f"the best was {self._best:.4f}"
        if math.isinf(loss):
            note = "this stage's weights are not the ones that are kept"
        elif loss < self._best:
            self._best, note = loss, "the best so far"
        trained = _number(trainer.callback_metrics.get("train/loss"))
        self._line(
            f"step {trainer.global_step}: validation loss {loss:.4f} ({note}), training loss {trained:.4f}, "
            f"after {_duration(self.clock() - self._begin)}"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what it was."""
        if trainer.is_global_zero:
            done = trainer.global_step - self._first
            self._line(f"trained {done} steps in {_duration(self.clock() - self._begin)}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal's line to whoever writes next."""
        self._clear()

    def _measure(self, step: int) -> None:
        now = self.clock()
        if self._last is None or step - self._first <= WARM_UP:
            self._last = (now, step)
            return
        elapsed, done = now - self._last[0], step - self._last[1]
        if done <= 0 or elapsed <= 0:
            return
        # steps of a GPU end in bursts: the mean forgets slowly
        weight = 1.0 if not self._speed else 1 - math.exp(-elapsed / MEMORY)
        self._speed += weight * (done / elapsed - self._speed)
        self._last = (now, step)

    def _show(self, step: int, loss: float) -> None:
        speed = self._speed
        parts = [f"step {step} of {self.total} ({100 * step // max(1, self.total)} %)", f"loss {loss:.4f}"]
        if speed:
            parts += [f"{speed:.2f} steps/s", f"{speed * self._samples:.1f} samples/s"]
            parts.append(f"{_duration(max(0, self.total - step) / speed)} left")
        if not self.on_terminal:
            self._line(", ".join(parts))
            return
        full = BAR * step // max(1, self.total)
        self._rewrite(f"[{'#' * min(BAR, full)}{'.' * (BAR - min(BAR, full))}] " + "  ".join(parts))

    def _rewrite(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns - 1
        text = text[:columns]
        self.output.write("\r" + text.ljust(min(self._width, columns)))
        self.output.flush()
        self._width = len(text)

    def _line(self, text: str) -> None:
        self._clear()
        self.output.write(text + "\n")
        self.output.flush()

    def _clear(self) -> None:
        if self._width:
            self.output.write("\r" + " " * self._width + "\r")
            self.output.flush()
            self._width = 0


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
