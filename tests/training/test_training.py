"""Real training: it beats the floor, survives a SIGKILL in mid-epoch, and refuses what can't work."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from avgn.checkpoint import load_model
from avgn.config import Config, preset
from avgn.data.batch import collate
from avgn.data.dataset import AudioVisualDataset
from avgn.data.sampling import SeededBatches
from avgn.engine import TorchEngine
from avgn.evaluation import evaluate
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.manifest import read_manifest
from avgn.training import TrainConfig
from avgn.training.fit import train
from avgn.training.module import AVGNModule
from tests.patience import PATIENCE, best_of, until
from tests.squares import CLASSES, write_squares

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "image_size": (64, 64),
    "visual_stride": 16,
    "width_visual": 8,
    "width_audio": 8,
    "dim": 32,
    "depth": 1,
    "heads": 4,
    "window_seconds": 0.5,
}
QUICK: dict[str, Any] = {"batch_size": 32, "learning_rate": 2e-3, "visual_weights": "random", "cache": True}
STEPS = 250


def small_config() -> Config:
    return preset("avgn-tiny", classes=CLASSES, **SMALL)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("squares")
    return {
        "train": write_squares(folder / "train", 256),
        "val": write_squares(folder / "val", 64, seed=1, split="val"),
        "test": write_squares(folder / "test", 64, seed=2, split="test"),
    }


@pytest.fixture(scope="session")
def trained(squares: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    options = QUICK | {"steps": STEPS, "learning_rate": 3e-3}
    settings = TrainConfig(schedule="cosine", checkpoint_steps=100, keep="last", auxiliary=1.0, **options)
    manifests = read_manifest(squares["train"]), read_manifest(squares["val"])
    # sums over several threads come in any order: one thread gives the same run every time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(small_config(), *manifests, output, settings, progress=False)
    finally:
        torch.set_num_threads(threads)


def test_a_few_hundred_steps_beat_the_floor(trained: Path, squares: dict[str, Path]) -> None:
    engine = TorchEngine(load_model(trained))
    result = evaluate(engine, read_manifest(squares["test"]), ["adaptive"], ["given", "predicted"], bootstrap=0)
    given, predicted = result[0], result[1]
    # twice as much is found: what rounding decides on another processor costs some images
    assert given["metrics"]["CIoU@0.3"] >= given["floor"]["CIoU@0.3"] + 25
    assert given["metrics"]["CAP"] >= given["floor"]["CAP"] + 20
    assert predicted["metrics"]["class F1 audio"] >= 90


def test_the_run_leaves_checkpoints_logs_weights_and_thresholds(trained: Path) -> None:
    assert (trained / "checkpoints" / "last.ckpt").is_file()
    assert (trained / "checkpoints" / "best.ckpt").is_file()
    assert list((trained / "tensorboard").glob("events*"))
    steps = [json.loads(line)["step"] for line in (trained / "losses.jsonl").read_text().splitlines()]
    assert steps == list(range(STEPS))
    facts = json.loads((trained / "config.json").read_text())
    assert facts["training"]["steps"] == STEPS and facts["training"]["skipped_steps"] == 0
    assert len(facts["thresholds"]["audio"]) == len(CLASSES)
    model = load_model(trained)
    weights = load_file(trained / "model.safetensors")
    torch.testing.assert_close(weights["tokens"], model.state_dict()["tokens"])


def command(manifest: Path, output: Path, *more: str) -> list[str]:
    options = {**SMALL, "image_size": "[64,64]"}
    model = [part for name, value in options.items() for part in (f"--model.{name}", str(value))]
    return [
        *(sys.executable, "-m", "avgn", "train", str(manifest), "--output", str(output), "--preset", "avgn-tiny"),
        *("--steps", "20", "--batch-size", "16", "--checkpoint-steps", "3", "--visual-weights", "random"),
        *("--threads", "1", *model, *more),
    ]


def losses(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "losses.jsonl").read_text().splitlines()]


def test_resuming_after_sigkill_in_mid_epoch_repeats_the_unbroken_run(squares: dict[str, Path], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    unbroken = tmp_path / "unbroken"
    subprocess.run(command(squares["train"], unbroken), env=environment, check=True, capture_output=True)
    broken = tmp_path / "broken"
    numbers = itertools.count()

    def kill_in_mid_epoch() -> None:
        nonlocal broken
        broken = tmp_path / f"broken-{next(numbers)}"
        process = subprocess.Popen(
            command(squares["train"], broken), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        log = broken / "losses.jsonl"
        until(
            lambda: log.exists() and len(log.read_text().splitlines()) >= 5,
            2 * PATIENCE,
            going_on=lambda: process.poll() is None,
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(losses(broken)) < 16, "the kill must come before the epoch's 16 steps are over"

    # a busy machine wakes us late
    best_of(kill_in_mid_epoch)
    assert not (broken / "model.safetensors").exists()
    subprocess.run(command(squares["train"], broken, "--resume"), env=environment, check=True, capture_output=True)
    first, second = losses(unbroken), losses(broken)
    assert [row["step"] for row in second] == list(range(20))
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(load_file(unbroken / "model.safetensors"), load_file(broken / "model.safetensors"))


def test_batches_depend_on_seed_and_position_alone() -> None:
    whole = list(SeededBatches(50, 8, seed=3))
    resumed = list(SeededBatches(50, 8, seed=3, position=lambda: 4))
    assert resumed == whole[4:]
    second = list(SeededBatches(50, 8, seed=3, position=lambda: 6))
    assert {key.epoch for batch in second for key in batch} == {1} and second != whole
    halves = [list(SeededBatches(50, 4, seed=3, rank=rank, world=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_samples_are_seeded_by_item_and_epoch(squares: dict[str, Path]) -> None:
    manifest = read_manifest(squares["train"])
    first = AudioVisualDataset(manifest, small_config(), train=True, cache=True)
    second = AudioVisualDataset(manifest, small_config(), train=True)
    one, same, other = first[(0, 3)], second[(0, 3)], first[(1, 3)]
    assert (one.image == same.image).all() and one.order == same.order
    assert abs(one.waveform - same.waveform).max() < 1e-4
    assert (one.image != other.image).any() and (one.waveform != other.waveform).any()
    batch = collate([one, other], len(CLASSES))
    assert batch.labels.mask.sum() == len(one.order) + len(other.order)


def test_a_gradient_that_stays_non_finite_stops_training(squares: dict[str, Path]) -> None:
    config = small_config()
    model = load_small(config)
    module = AVGNModule(model, TrainConfig(**QUICK), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    before = model.tokens.detach().clone()
    module.log = lambda *a, **k: None  # type: ignore[method-assign]
    module.configure_gradient_clipping(optimizer, 1.0)
    optimizer.step()
    assert module.skipped == 1 and torch.equal(model.tokens, before)
    with pytest.raises(FailureError, match="not finite in 10 steps in a row"):
        for _ in range(9):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, float("inf"))
            module.configure_gradient_clipping(optimizer, 1.0)


def load_small(config: Config) -> Any:
    from avgn.model import build_model

    return build_model(config)


@pytest.fixture(scope="module")
def plain_losses(squares: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    output = tmp_path_factory.mktemp("plain") / "o"
    settings = TrainConfig(steps=4, **QUICK)
    return losses(train(small_config(), read_manifest(squares["train"]), None, output, settings, progress=False))


@pytest.mark.parametrize(
    "extra",
    [{"dropout": 0.2}, {"momentum": 0.9}, {"accumulate": 2}, {"auxiliary": 1.0}, {"precision": "bf16-mixed"}],
    ids=str,
)
def test_training_options_run(
    extra: dict[str, Any], squares: dict[str, Path], plain_losses: list[dict[str, float]], tmp_path: Path
) -> None:
    """What each does is pinned in test_module; here they reach the trainer: the numbers are others than without."""
    settings = TrainConfig(steps=4, **(QUICK | extra))
    output = train(small_config(), read_manifest(squares["train"]), None, tmp_path / "o", settings, progress=False)
    found = losses(output)
    assert all(math.isfinite(value) for row in found for value in row.values())
    assert [row["loss"] for row in found] != pytest.approx([row["loss"] for row in plain_losses], rel=1e-6)
    assert (found[0].keys() - plain_losses[0].keys()) == ({"auxiliary"} if "auxiliary" in extra else set())


def test_bad_input_is_refused_before_anything_is_written(squares: dict[str, Path], tmp_path: Path) -> None:
    manifest = read_manifest(squares["train"])
    output = tmp_path / "out"
    wrong_classes = preset("avgn-tiny", classes=("x", "y"), **SMALL)
    with pytest.raises(InputError, match="they must be the same"):
        train(wrong_classes, manifest, None, output, TrainConfig(**QUICK), progress=False)
    with pytest.raises(InputError, match="don't fill a batch"):
        train(small_config(), manifest, None, output, TrainConfig(**(QUICK | {"batch_size": 999})), progress=False)
    with pytest.raises(InputError, match="train without `resume` first"):
        train(small_config(), manifest, None, output, TrainConfig(**QUICK), resume=True, progress=False)
    assert not output.exists()
    output.mkdir()
    (output / "thing").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        train(small_config(), manifest, None, output, TrainConfig(**QUICK), progress=False)
    assert sorted(path.name for path in output.iterdir()) == ["thing"]
    with pytest.raises(ValueError, match="choose a larger value"):
        TrainConfig(batch_size=0)


def test_checkpoints_that_are_none_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config.json"):
        load_model(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_text((trained / "config.json").read_text())
    with pytest.raises(InputError, match=r"holds no model.safetensors"):
        load_model(copy)
    (copy / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match="doesn't fit its configuration"):
        load_model(copy)
    (copy / "config.json").write_text('{"format": "avgn-checkpoint", "version": 99}')
    with pytest.raises(InputError, match="version 99"):
        load_model(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="be read as JSON"):
        load_model(copy)


def test_the_position_after_steps_counts_batches_of_whole_epochs() -> None:
    from avgn.training.source import position

    # 16 batches in steps of 3: five steps take 15, the sixth takes the one that is left
    assert [position(step, 3, 16) for step in (0, 1, 5, 6, 7)] == [0, 3, 15, 16, 19]
    assert position(21, 1, 16) == 21
