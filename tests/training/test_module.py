"""What a step of training does, number by number: options that would be ignored without anything failing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from avgn.checkpoint import load_model
from avgn.config import preset
from avgn.data.augment import Augmentation
from avgn.data.mixing import Mixing
from avgn.losses import presence_loss
from avgn.model import AVGN
from avgn.runtime.errors import FailureError
from avgn.runtime.manifest import read_manifest
from avgn.training import TrainConfig
from avgn.training.fit import count_steps, train
from avgn.training.module import MOST_SKIPPED_IN_A_ROW, AuxiliaryHeads, AVGNModule
from avgn.types import AudioSources, Batch, ImageCells, Labels
from tests.squares import CLASSES, write_squares

SMALL: dict[str, Any] = {
    "classes": CLASSES,
    "image_size": (32, 32),
    "width_visual": 4,
    "width_audio": 4,
    "dim": 16,
    "depth": 1,
    "heads": 4,
    "window_seconds": 0.3,
    "drop_path": 0.0,
}


def model_of(seed: int = 0, **options: Any) -> AVGN:
    torch.manual_seed(seed)
    return AVGN(preset("avgn-tiny", **(SMALL | options)))


def module_of(model: AVGN | None = None, steps: int = 100, **settings: Any) -> AVGNModule:
    module = AVGNModule(model or model_of(), TrainConfig(**({"visual_weights": "random"} | settings)), steps)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return module


def batch_of(model: AVGN, count: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(count)])
    present = torch.zeros(count, 4).scatter(1, order, 1.0)
    visible = present.clone()
    # one class sounds off-screen: the heads have different targets
    visible[0, order[0, 1]] = 0.0
    mask = visible.gather(1, order).bool()
    return Batch(
        image=torch.randint(0, 256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8),
        waveform=0.1 * torch.randn(count, model.config.window_samples, generator=generator),
        labels=Labels(sounding=present, visible=visible, order=order, mask=mask),
    )


def test_the_defaults_are_the_papers() -> None:
    found = TrainConfig()
    assert (found.epochs, found.batch_size, found.learning_rate) == (100, 128, 1e-4)
    assert (found.weight_decay, found.warmup_steps, found.schedule, found.gradient_clip) == (0.0, 0, "constant", 1.0)
    assert (found.precision, found.accumulate, found.dropout, found.momentum) == ("32-true", 1, 0.0, 0.0)
    assert (found.auxiliary, found.keep, found.seed, found.workers) == (0.0, "best", 0, 0)
    assert found.mixing == Mixing(mixture=(1, 1), mix_level="plain", silent=0.0, off_screen=0.0)
    assert found.augmentation == Augmentation(zoom=1.15, flip=0.5, light=0.2, color=0.0, gain_db=6.0, padding=0.1)
    assert (found.visual_weights, found.checkpoint_steps, found.validate_epochs) == ("imagenet", 200, 1)


def test_the_rate_warms_up_from_its_first_share_not_from_zero() -> None:
    module = module_of(warmup_steps=4, learning_rate=0.1)
    assert [module._rate(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [module_of()._rate(step) for step in (0, 99)] == [1.0, 1.0]
    cosine = module_of(warmup_steps=4, schedule="cosine")
    for step in range(0, 130):
        whole = min(1.0, (step + 1) / 4) * (1 + math.cos(math.pi * min(step, 100) / 100)) / 2
        assert cosine._rate(step) == pytest.approx(whole)
    assert cosine._rate(50) == pytest.approx(0.5) and cosine._rate(100) == cosine._rate(200) == 0.0
    # what the optimizer gets
    chosen = module.configure_optimizers()
    assert chosen["lr_scheduler"]["interval"] == "step"
    assert [group["lr"] for group in chosen["optimizer"].param_groups] == pytest.approx([0.025, 0.025])


def test_steps_are_counted_in_batches_that_accumulate() -> None:
    assert count_steps(TrainConfig(epochs=3, accumulate=4), 10) == 9
    assert count_steps(TrainConfig(epochs=3), 10) == 30
    assert count_steps(TrainConfig(epochs=3, steps=7, accumulate=4), 10) == 7


def test_weight_decay_shrinks_matrices_and_spares_biases_norms_and_what_is_frozen() -> None:
    module = module_of(weight_decay=0.5, learning_rate=0.1)
    module.model.get_parameter("token_gate.weight").requires_grad_(False)
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.add_(0.1)
    before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    for parameter in module.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in module.model.named_parameters():
        shrinks = value.dim() > 1 and name != "token_gate.weight"
        # AdamW: w <- (1 - rate * decay) w, and nothing else without a gradient
        torch.testing.assert_close(value.detach(), before[name] * (0.95 if shrinks else 1.0), msg=name)


@pytest.mark.parametrize("limit", [0.5, None], ids=["limit", "none"])
def test_gradients_are_clipped_by_their_common_norm(limit: float | None) -> None:
    module = module_of()
    optimizer = torch.optim.SGD(module.model.parameters(), lr=1.0)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    before = torch.cat([p.grad.flatten() for p in module.model.parameters() if p.grad is not None])
    module.configure_gradient_clipping(optimizer, limit)
    after = torch.cat([p.grad.flatten() for p in module.model.parameters() if p.grad is not None])
    torch.testing.assert_close(after, before if limit is None else before * 0.5 / before.norm(), rtol=1e-4, atol=1e-8)
    assert module.skipped == 0


def test_only_steps_in_a_row_without_a_finite_gradient_stop_training() -> None:
    module = module_of()
    parameter = next(module.model.parameters())
    optimizer = torch.optim.SGD([parameter], lr=1.0)

    def step(value: float) -> None:
        parameter.grad = torch.full_like(parameter, value)
        module.configure_gradient_clipping(optimizer, 1.0)

    for _ in range(3):
        for _ in range(MOST_SKIPPED_IN_A_ROW - 1):
            step(math.nan)
            assert parameter.grad is None
        step(1.0)
        assert parameter.grad is not None and module.skipped_in_a_row == 0
    assert module.skipped == 3 * 9 and MOST_SKIPPED_IN_A_ROW == 10
    with pytest.raises(FailureError, match="not finite in 10 steps in a row"):
        for _ in range(10):
            step(math.inf)


class Watch(Callback):
    """Keeps the weights of the model and of its teacher after each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.seen.append(
            tuple({k: v.clone() for k, v in each.state_dict().items()} for each in (pl_module.model, pl_module.teacher))  # type: ignore[arg-type]
        )


def test_the_teacher_is_a_moving_average_and_keeps_its_momentum() -> None:
    model = model_of()
    module = AVGNModule(model, TrainConfig(momentum=0.9, learning_rate=1e-2, visual_weights="random"), 3)
    # statistics of batch norms are the teacher's own besides
    teacher = {name: value.detach().clone() for name, value in model.named_parameters()}
    watch = Watch()
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_steps=3, callbacks=[watch], accelerator="cpu", enable_model_summary=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader([batch_of(model, seed=seed) for seed in range(3)], batch_size=None))  # type: ignore[arg-type]
    assert len(watch.seen) == 3
    for mine, theirs in watch.seen:
        for name in teacher:
            teacher[name] = 0.9 * teacher[name] + 0.1 * mine[name]
            torch.testing.assert_close(theirs[name], teacher[name], msg=name)
        assert all(torch.equal(theirs[name], mine[name]) for name in mine if name.endswith("num_batches_tracked"))
    assert module.teacher is not None and not any(p.requires_grad for p in module.teacher.parameters())
    moved = watch.seen[-1][0]["tokens"] - watch.seen[-1][1]["tokens"]
    assert float(moved.abs().max()) > 1e-3


def crossed(module: AVGNModule, batch: Batch) -> Tensor:
    """The localization loss of either half with the teacher's other half, their mean."""
    assert module.teacher is not None
    labels, model = batch.labels, module.model
    audio, image = model(batch.waveform, batch.image)
    with torch.no_grad():
        slow_audio, slow_image = module.teacher(batch.waveform, batch.image)
    first = model.losses(audio, slow_image, labels).localization
    return 0.5 * (first + model.losses(slow_audio, image, labels).localization)


def test_both_halves_are_contrasted_with_the_teachers() -> None:
    module = module_of(momentum=0.9).eval()
    assert module.teacher is not None
    with torch.no_grad():
        for parameter in module.teacher.parameters():
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
        batch = batch_of(module.model)  # type: ignore[arg-type]
        losses = module._losses(batch)
        plain = module.model.losses(*module.model(batch.waveform, batch.image), batch.labels)
        torch.testing.assert_close(losses.localization, crossed(module, batch))
    assert abs(float(losses.localization - plain.localization)) > 1e-3
    for name in ("token", "audio", "visual"):
        torch.testing.assert_close(getattr(losses, name), getattr(plain, name))
    torch.testing.assert_close(losses.total, losses.localization + losses.token + losses.audio + losses.visual)


@pytest.mark.parametrize("weight", [0.25, 2.0])
def test_auxiliary_heads_weigh_as_much_as_they_are_told(weight: float) -> None:
    module = module_of(auxiliary=weight).eval()
    assert module.auxiliary is not None
    batch = batch_of(module.model)  # type: ignore[arg-type]
    with torch.no_grad():
        found = module.training_step(batch, 0)
        losses = module.model.losses(*module.model(batch.waveform, batch.image), batch.labels)
        extra = module.auxiliary(batch.labels, module.config)
    torch.testing.assert_close(found, losses.total + weight * extra)
    assert float(extra) > 0 and not any(p.requires_grad for p in module.auxiliary.parameters())
    assert AVGNModule(model_of(), TrainConfig(), 1).auxiliary is None


def test_auxiliary_heads_read_the_encoders_own_features() -> None:
    model = model_of().eval()
    heads = AuxiliaryHeads(model)
    batch = batch_of(model)
    with torch.no_grad():
        heard = model.audio_encoder(model.frontend(batch.waveform))
        seen, _ = model.visual_encoder(model.normalize(batch.image))
        model(batch.waveform, batch.image)
        found = heads(batch.labels, model.config)
        truth = presence_loss(heads.hear(heard), batch.labels.sounding, model.config)
        truth = truth + presence_loss(heads.see(seen).amax(dim=1), batch.labels.visible, model.config)
    torch.testing.assert_close(found, truth)


def test_every_batch_of_every_process_has_chance_of_its_own_that_a_resumed_run_repeats() -> None:
    """Batches that are summed for one step, too."""
    module = module_of(accumulate=3, seed=5)
    batch = batch_of(module.model)  # type: ignore[arg-type]

    def seed(step: int, index: int, rank: int) -> int:
        place = SimpleNamespace(global_step=step, global_rank=rank, world_size=2, current_epoch=0)
        module._trainer = place  # type: ignore[assignment]
        module.on_train_batch_start(batch, index)
        return torch.initial_seed()

    places = [(number // 3, number, rank) for number in range(12) for rank in range(2)]
    seeds = [seed(*place) for place in places]
    assert len(set(seeds)) == len(places) and seeds == [seed(*place) for place in places]
    # the batches of the next epoch are counted anew: the steps go on
    assert seed(4, 0, 0) not in seeds
    module.settings = TrainConfig(visual_weights="random", accumulate=3, seed=6)
    assert not set(seeds) & {seed(*place) for place in places}


def test_dropout_hides_features_and_no_logits_and_only_in_training() -> None:
    module = module_of(dropout=0.25)
    ones = torch.ones(64, 4, 16)
    audio = AudioSources(embedding=ones, logit=ones[:, :, 0])
    image = ImageCells(cells=ones, gate=ones, logit=ones[:, :, 1], grid=(2, 2))
    heard, seen = module._dropped(audio, image)
    for dropped in (heard.embedding, seen.cells):
        assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
        assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert heard.logit is audio.logit and seen.logit is image.logit and seen.gate is image.gate
    assert seen.grid == (2, 2)
    # a training step has it, a validation step has not
    batch = batch_of(module.model)  # type: ignore[arg-type]
    module.eval()
    audio, image = module.model(batch.waveform, batch.image)
    plain = module.model.losses(audio, image, batch.labels)
    assert not torch.equal(module._losses(batch).localization, plain.localization)
    logged: dict[str, Any] = {}
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    module.validation_step(batch, 0)
    torch.testing.assert_close(logged["val/localization"], plain.localization)
    for name in ("token", "audio", "visual"):
        torch.testing.assert_close(logged[f"val/{name}"], getattr(plain, name))
    torch.testing.assert_close(logged["val/loss"], plain.total)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("squares")
    return {
        "train": write_squares(folder / "train", 16, seconds=0.3),
        "val": write_squares(folder / "val", 8, seed=1, split="val", seconds=0.3),
    }


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_asked_for_are_kept(
    keep: Any, scenes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the second of three epochs is said to be the best
    losses: Iterator[float] = iter([3.0, 1.0, 2.0])
    real = AVGNModule.validation_step

    def validation_step(self: AVGNModule, batch: Batch, batch_idx: int) -> None:
        real(self, batch, batch_idx)
        self.log("val/loss", next(losses), batch_size=len(batch.image))

    monkeypatch.setattr(
        AVGNModule,
        "_log",
        lambda self, stage, found, count: self.log_dict({f"{stage}/x": found.total}, batch_size=count),
    )
    monkeypatch.setattr(AVGNModule, "validation_step", validation_step)
    settings = TrainConfig(
        epochs=3, batch_size=8, learning_rate=1e-2, visual_weights="random", cache=True, keep=keep, checkpoint_steps=1
    )
    manifests = read_manifest(scenes["train"]), read_manifest(scenes["val"])
    output = train(preset("avgn-tiny", **SMALL), *manifests, tmp_path / "o", settings, progress=False)
    kept = load_file(output / "model.safetensors")["tokens"]
    states = {
        name: torch.load(output / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]["model.tokens"]
        for name in ("best", "last")
    }
    assert not torch.equal(states["best"], states["last"])
    assert torch.equal(kept, states[keep])
    model = load_model(output)
    assert model.thresholds is not None and torch.equal(model.state_dict()["tokens"], kept)


def test_no_halves_are_trained_with_cudnns_attention() -> None:
    """Its gradients are not finite at some shapes; what the program has set stays as it was."""
    module = module_of()
    seen: list[bool] = []
    halves = module.halves

    def look(*given: Tensor) -> Any:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return halves(*given)

    module.halves = look
    before = torch.backends.cuda.cudnn_sdp_enabled()
    module._losses(batch_of(model_of()))
    assert seen == [False] and torch.backends.cuda.cudnn_sdp_enabled() == before
