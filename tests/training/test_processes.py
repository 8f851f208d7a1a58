"""Several processes train as one does: the same losses and gradients, one set of files, a resumed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from avgn.runtime.errors import InputError
from avgn.training.processes import Processes
from tests.squares import write_squares
from tests.training.joint import CASES

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SMALL = (
    *("--preset", "avgn-tiny", "--visual-weights", "random", "--batch-size", "8", "--checkpoint-steps", "3"),
    *("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1"),
    *("--model.image-size=[64,64]", "--model.window-seconds=0.3", "--threads", "1"),
)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("joint")
    script = ROOT / "tests" / "training" / "joint.py"
    for name, launcher in (("one", (sys.executable,)), ("two", TORCHRUN)):
        done = run(*launcher, script, folder / name)
        assert done.returncode == 0, done.stderr
    return torch.load(folder / "one"), torch.load(folder / "two")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_loss_and_gradients_of_the_joint_batch(
    case: str, steps: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    one, two = steps[0][case], steps[1][case]
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-5, atol=1e-6)
    assert one["gradients"].keys() == two["gradients"].keys()
    largest = max(float(gradient.abs().max()) for gradient in one["gradients"].values())
    for name, gradient in one["gradients"].items():
        assert gradient.abs().max() > 0 or "norm" in name or "bias" in name
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=1e-5, atol=1e-5 * largest)


def test_torchrun_trains_leaves_one_set_of_files_and_resumes(tmp_path: Path) -> None:
    manifest = write_squares(tmp_path / "train", 40, seconds=0.4)
    held = write_squares(tmp_path / "val", 8, seed=1, split="val", seconds=0.4)
    output = tmp_path / "out"
    command = (*TORCHRUN, "-m", "avgn.train", manifest, "--validation", held, "--output", output, *SMALL)
    mixed = ("--mixture", "[1,2]", "--balance", "true")
    done = run(*command, *mixed, "--steps", 4)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in read_losses(output)] == list(range(4))
    facts = json.loads((output / "config.json").read_text())
    assert facts["training"]["processes"] == 2 and facts["training"]["throughput"]["samples_per_second"] > 0
    assert len(facts["thresholds"]["audio"]) == 4
    done = run(*command, *mixed, "--steps", 6, "--resume")
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in read_losses(output)] == list(range(6))
    done = run(*command, "--steps", 4)
    assert done.returncode != 0 and "is not empty" in done.stderr and "--resume" in done.stderr


def read_losses(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "losses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Processes()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}, (3, 4, 2)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}, (1, 8, 2)),
    ],
    ids=["none", "one", "torchrun", "slurm"],
)
def test_launchers_are_understood(environment: dict[str, str], expected: Any) -> None:
    if isinstance(expected, tuple):
        expected = Processes(rank=expected[0], count=expected[1], machines=expected[2])
    assert Processes.of_environment(environment) == expected


def test_an_uneven_launch_is_refused() -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
    with pytest.raises(InputError, match="start as many processes on every machine"):
        Processes.of_environment(environment)
