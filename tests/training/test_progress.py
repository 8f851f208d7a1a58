"""What a run of training says: a bar on a real terminal, plain lines without one, a line at each validation."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avgn.training.progress import TrainingProgress, _duration
from tests.cli.test_cli import ENVIRONMENT
from tests.squares import write_squares
from tests.training.test_training import command

NUMBER = r"\d+\.\d+"
SPEED = rf"[, ] ?{NUMBER} steps/s[, ] ?{NUMBER} samples/s[, ] ?\d+:\d\d left"
SHOWN = re.compile(rf"step (\d+) of 20 \((\d+) %\)[, ] ?loss {NUMBER}(?:{SPEED})?")
VALIDATED = re.compile(
    rf"step (\d+): validation loss {NUMBER} \((the best so far|the best was {NUMBER})\), training loss"
)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("few")
    return write_squares(folder / "train", 64), write_squares(folder / "val", 16, seed=1, split="val")


def test_plain_lines_without_a_terminal(tmp_path: Path, manifests: tuple[Path, Path]) -> None:
    run = command(manifests[0], tmp_path / "out", "--validation", str(manifests[1]))
    done = subprocess.run(run, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr and lines[0] == "training: 20 steps"
    steps = [int(found[1]) for line in lines if (found := SHOWN.fullmatch(line))]
    assert steps[0] == 1 and steps[-1] == 20
    # an epoch has four batches
    assert [int(found[1]) for line in lines if (found := VALIDATED.match(line))] == [4, 8, 12, 16, 20]
    assert re.fullmatch(r"trained 20 steps in \d+:\d\d", lines[-1])
    assert done.stdout.strip() == str(tmp_path / "out")


def test_a_bar_on_a_terminal(tmp_path: Path, manifests: tuple[Path, Path]) -> None:
    ours, theirs = pty.openpty()
    run = command(manifests[0], tmp_path / "out", "--validation", str(manifests[1]))
    environment = ENVIRONMENT | {"COLUMNS": "100"}
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:
        # the terminal's other end was closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = said.decode()
    bars = re.findall(r"\r\[([#.]{24})\] (step \d+ of 20 [^\r]*)", text)
    assert len(bars) >= 2 and bars[-1][0] == 24 * "#"
    assert all(SHOWN.match(re.sub(" {2,}", "  ", words.strip())) for _, words in bars), bars
    assert len(VALIDATED.findall(text)) == 5
    assert all(len(part) <= 100 for line in text.split("\n") for part in line.split("\r"))


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def follow(progress: TrainingProgress, clock: Clock, steps: range, seconds: float) -> None:
    module: Any = None
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        world_size=2,
        accumulate_grad_batches=1,
        sanity_checking=False,
        global_step=steps.start,
    )
    progress.on_train_start(trainer, module)
    for step in steps:
        clock.now += seconds
        trainer.global_step = step + 1
        trainer.callback_metrics = {"train/loss": torch.tensor(1.5)}
        progress.on_train_batch_end(trainer, module, None, SimpleNamespace(image=[0] * 8), 0)
        if step == 49:
            progress.on_validation_start(trainer, module)
            clock.now += 500
            trainer.callback_metrics |= {"val/loss": torch.tensor(float("inf"))}
            progress.on_validation_end(trainer, module)
    progress.on_train_end(trainer, module)


def test_speed_and_remaining_time() -> None:
    said, clock = io.StringIO(), Clock()
    follow(TrainingProgress(1000, said, clock), clock, range(0, 100), 2.0)
    lines = said.getvalue().splitlines()
    # two processes with eight pictures each, half a step a second; validation is none of the steps' time
    assert "step 16 of 1000 (1 %), loss 1.5000, 0.50 steps/s, 8.0 samples/s, 32:48 left" in lines
    last = next(line for line in reversed(lines) if line.startswith("step") and " of " in line)
    assert "0.50 steps/s" in last
    assert sum(" of 1000" in line for line in lines) <= 1 + 700 / 30
    assert "step 50: validation loss inf (this stage's weights are not the ones that are kept)" in said.getvalue()


def test_a_resumed_run_says_where_it_goes_on() -> None:
    said, clock = io.StringIO(), Clock()
    follow(TrainingProgress(130, said, clock), clock, range(100, 130), 1.0)
    lines = said.getvalue().splitlines()
    assert lines[0] == "training: 130 steps, from step 100 on" and lines[-1] == "trained 30 steps in 0:30"
    assert lines[-2].startswith("step 130 of 130 (100 %)") and lines[-2].endswith("0:00 left")


def test_durations() -> None:
    assert [_duration(s) for s in (0, 9.6, 61, 3599.6, 90_061)] == ["0:00", "0:10", "1:01", "1:00:00", "25:01:01"]
