"""What can be said of all systems: the registry, bad settings, and that each learns 32 easy scenes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from avgn.checkpoint import load_model, save_model
from avgn.cli import main
from avgn.config import Config, preset
from avgn.model import LocalizerModel, build_model
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import read_manifest
from avgn.systems import AVGN, RELEASED, SYSTEMS, systems_table
from avgn.training import TrainConfig
from avgn.training.fit import train
from avgn.training.hooks import TrainingHooks, hooks_of
from avgn.training.module import AVGNModule
from avgn.training.stages import Stages, stage_of
from avgn.types import Batch
from tests.baselines.scenes import overfit, precision, scenes, small
from tests.squares import write_squares

# the loss of a model that knows nothing of 32 pairs
CHANCE = {
    "attention10k": 0.5,
    "ots": math.log(2),
    "dmc": 1.0,
    # its second stage: matching, and features of one length at the best of distances whatever their category
    "coarse-to-fine": math.log(2) + 0.5,
    "dsol": math.log(2),
    "lvs": math.log(33),
    "ez-vsl": 2 * math.log(32),
    "mix-and-localize": math.log(2),
    "hard-pos": math.log(33),
    "slavc": math.log(32),
}
OTHERS = [name for name in SYSTEMS if name not in (AVGN, RELEASED)]


def test_the_registry_names_every_system() -> None:
    assert set(CHANCE) <= set(OTHERS)
    assert len(systems_table()) == 1 + len(SYSTEMS)
    for name, system in SYSTEMS.items():
        assert system.load().__mro__.index(LocalizerModel) > 0
        config = preset("avgn-tiny", system=name)
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert config.name == ("avgn-tiny" if name == AVGN else f"{name}-tiny")


def test_avgn_models_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", str(tmp_path / "m.json")]) == 0
    printed = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads((tmp_path / "m.json").read_text())}
    assert all(name in printed for name in SYSTEMS)
    assert rows["dsol"]["class_aware"] and rows["dsol"]["stages"] == 2 and not rows["lvs"]["class_aware"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": "lsv"}, "system 'lsv' is not known: choose one of avgn, attention10k"),
        ({"system": "lvs", "options": {"tau": 1}}, "has no option 'tau': use some of mask_temperature"),
        ({"system": "lvs", "options": {"temperature": 0}}, "option temperature must be positive, got 0"),
        ({"system": "lvs", "options": {"positive": 0.1}}, "option negative must not exceed positive"),
        ({"system": "lvs", "visual_gate": "none"}, "visual_gate is an entry of system avgn alone"),
        ({"system": "avgn", "options": {"alpha": 1}}, "system avgn has no options"),
        ({"system": "ez-vsl", "options": {"alpha": 2}}, "option alpha must lie in 0..1, got 2"),
        ({"system": "mix-and-localize", "options": {"sources": 1}}, "option sources must be at least 2"),
        ({"system": "dsol", "options": {"second_stage": 1.0}}, "option second_stage must lie in 0..1"),
        ({"system": "hard-pos", "options": {"neighbours": 0}}, "option neighbours must be at least 1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset("avgn-tiny", **options)


def test_a_prior_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="pass a file as `visual_weights`, or alpha 1"):
        hooks_of(build_model(small("ez-vsl", alpha=0.4)), "random")


def test_stages_begin_once_also_after_a_restart() -> None:
    assert [stage_of((0.5,), step, 10) for step in (0, 4, 5, 9)] == [0, 0, 1, 1]
    calls: list[str] = []

    class Model:
        training = True

        def eval(self) -> None:
            assert torch.is_grad_enabled()

        def train(self, mode: bool) -> None:
            assert mode

    class Watched(TrainingHooks):
        stage_shares = (0.5,)

        def begin_epoch(self, batches: Any) -> None:
            calls.append(f"epoch in {self.stage}")

        def enter_stage(self, stage: int, batches: Any) -> None:
            calls.append(f"stage {stage}")

    model: Any = Model()
    hooks = Watched(model)
    stages = Stages()
    for step in range(6):
        stages.begin_step(hooks, step, 10, step // 4, list)
    again = Stages()
    again.load_state_dict(stages.state_dict())
    for step in range(6, 10):
        again.begin_step(hooks, step, 10, step // 4, list)
    assert calls == ["epoch in 0", "epoch in 0", "stage 1", "epoch in 1"]


@pytest.fixture(scope="module")
def easy() -> tuple[Batch, Any]:
    return scenes()


# options and steps where the usual ones don't do
LEARNING: dict[str, tuple[dict[str, Any], int]] = {
    "dmc": ({}, 30),
    "mix-and-localize": ({}, 30),
    "slavc": ({"visual_dropout": 0.2}, 60),
    "coarse-to-fine": ({}, 90),
    "dsol": ({}, 80),
}


@pytest.mark.parametrize("system", OTHERS)
def test_a_system_learns_32_scenes(system: str, easy: tuple[Batch, Any]) -> None:
    batch, truth = easy
    options, steps = LEARNING.get(system, ({}, 60))
    # sums over several threads come in any order: one thread gives the same run every time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, losses = overfit(small(system, **options), batch, steps)
    finally:
        torch.set_num_threads(threads)
    # of a system that is not in the list, what it begins with
    assert sum(losses[-5:]) / 5 <= 0.8 * CHANCE.get(system, losses[0])
    found, floor = precision(model, batch, truth)
    assert found >= floor + 0.03


def test_what_only_training_needs_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    model = build_model(small("hard-pos"))
    module = AVGNModule(model, TrainConfig(), 10)
    assert any(name.startswith("school.") for name in module.state_dict())
    loaded = load_model(save_model(model, tmp_path / "c"))
    assert not any("school" in name for name in loaded.state_dict())


def test_a_trainers_checkpoint_of_before_the_hooks_is_read() -> None:
    module = AVGNModule(build_model(small("hard-pos")), TrainConfig(momentum=0.9), 10)
    now = module.state_dict()
    then = {f"model.{name}" if name.startswith("school.") else name: value for name, value in now.items()}
    then |= {f"teacher.{name}": value for name, value in now.items() if name.startswith("school.")}
    then["model.school.least"] = torch.tensor([0.25, 0.5])
    module.load_state_dict(then)
    assert module.school is not None and module.school.get_buffer("least").tolist() == [0.25, 0.5]


@pytest.mark.parametrize("system", ["dsol", "hard-pos", "slavc"])
def test_resumed_training_repeats_an_unbroken_one(system: str, tmp_path: Path) -> None:
    manifest = read_manifest(write_squares(tmp_path / "data", 24, seconds=0.2))
    config = small(system)
    settings: dict[str, Any] = {"batch_size": 8, "visual_weights": "random", "learning_rate": 1e-3, "cache": True}
    whole = tmp_path / "whole"
    train(config, manifest, None, whole, TrainConfig(steps=8, **settings), progress=False)
    # the second stage begins at step 4: once before, once after the break
    broken = tmp_path / "broken"

    class Stop(Exception):
        pass

    def stop_after(steps: int) -> Any:
        from avgn.training.trainer import LossLog

        class Breaking(LossLog):
            def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
                super().on_train_batch_end(trainer, *rest)
                if trainer.global_step == steps:
                    raise Stop

        return Breaking

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avgn.training.trainer.LossLog", stop_after(6))
        with pytest.raises(Stop):
            train(config, manifest, None, broken, TrainConfig(steps=8, checkpoint_steps=5, **settings), progress=False)
    train(config, manifest, None, broken, TrainConfig(steps=8, **settings), resume=True, progress=False)
    lines = [[json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()] for out in (whole, broken)]
    assert [row["step"] for row in lines[1]] == list(range(8))
    for one, other in zip(*lines, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
