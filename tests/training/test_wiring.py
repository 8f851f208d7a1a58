"""Settings reach the part that acts on them: an option that is dropped on the way fails nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from avgn.config import preset
from avgn.data.augment import NONE, Augmentation, augment_image
from avgn.data.batch import collate
from avgn.data.dataset import AudioVisualDataset
from avgn.data.mixing import Mixing, Scene, mix
from avgn.data.sampling import Key
from avgn.evaluation.calibration import calibrate
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.training import TrainConfig, fit
from avgn.training.processes import Processes
from avgn.training.progress import TrainingProgress
from avgn.training.source import SURVEY, TrainingSource
from avgn.training.throughput import Throughput
from avgn.training.trainer import build_trainer
from tests.squares import CLASSES, write_squares

CONFIG = preset("avgn-tiny", classes=CLASSES, image_size=(32, 32), window_seconds=0.3)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_squares(tmp_path_factory.mktemp("data") / "set", 12, seconds=0.4))


def test_training_scenes_have_the_settings_of_the_run(manifest: Manifest, tmp_path: Path) -> None:
    settings = TrainConfig.from_options(
        batch_size=3, seed=5, zoom=1.5, gain_db=3.0, mixture=(2, 3), mix_level="rms", silent=0.25, cache=True,
        off_screen=0.5, balance=True, audio_cache=str(tmp_path / "sounds"), accumulate=2,
    )  # fmt: skip
    source = TrainingSource(manifest, CONFIG, settings, Processes(rank=1, count=2))
    scenes: Any = source._scenes
    assert scenes.train and scenes.seed == 5 and scenes.cache is not None and scenes.waveforms is not None
    assert scenes.augmentation == Augmentation(zoom=1.5, gain_db=3.0) == settings.augmentation
    assert scenes.mixing == Mixing(mixture=(2, 3), mix_level="rms", silent=0.25, off_screen=0.5)
    batches: Any = source._batches
    assert (batches.seed, batches.rank, batches.world, batches.scenes) == (5, 1, 2, (2, 3))
    assert batches.chance is not None and len(batches.chance) == 12
    plain: Any = TrainingSource(manifest, CONFIG, TrainConfig(batch_size=3), Processes(rank=0, count=1))
    assert plain._batches.chance is None
    # twelve scenes make two joint batches of six; after three steps of two batches each, three epochs have gone
    assert len(source) == 2
    source.loader(lambda: 3)
    assert source._position() == 6
    seen = list(source.survey())
    assert [len(batch.image) for batch in seen] == [3] * 4 and seen[0].image.shape[2] == 2 * 32
    again = list(source.survey())
    assert all(torch.equal(one.image, other.image) for one, other in zip(seen, again, strict=True))
    assert SURVEY == 1024


def trainer_of(output: Path, validates: bool = True, progress: bool | None = False, **settings: Any) -> Any:
    training = TrainConfig.from_options(**settings)
    here = Processes(rank=0, count=1)
    options: dict[str, Any] = {"validates": validates, "progress": progress, "staged": False, "total_steps": 9}
    return build_trainer(output, training, here, throughput=Throughput(), **options)


def test_the_trainer_has_the_settings_of_the_run(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        epochs=7,
        accumulate=3,
        gradient_clip=0.5,
        precision="bf16-mixed",
        validate_epochs=2,
        checkpoint_steps=11,
    )
    assert (trainer.max_epochs, trainer.max_steps, trainer.accumulate_grad_batches) == (7, -1, 3)
    assert (trainer.gradient_clip_val, trainer.precision, trainer.check_val_every_n_epoch) == (0.5, "bf16-mixed", 2)
    last, best = sorted(
        (each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)), key=lambda each: each.monitor or ""
    )
    assert (last.filename, last._every_n_train_steps) == ("last", 11)
    assert (best.filename, best.monitor, best.mode) == ("best", "val/loss", "min")
    assert not any(isinstance(each, TrainingProgress) for each in trainer.callbacks)
    # steps take the place of epochs, a limit of zero clips nothing, and without validation nothing is the best
    other = trainer_of(tmp_path, validates=False, progress=True, steps=40, gradient_clip=0.0)
    assert (other.max_epochs, other.max_steps, other.gradient_clip_val) == (-1, 40, None)
    assert sum(isinstance(each, ModelCheckpoint) for each in other.callbacks) == 1
    assert any(isinstance(each, TrainingProgress) for each in other.callbacks)


def test_validation_scenes_are_neither_changed_nor_mixed(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AudioVisualDataset] = []
    seen: dict[str, Any] = {}

    class Noted(AudioVisualDataset):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)

    def calibrated(engine: Any, validation: Manifest) -> Any:
        seen["validation"] = validation
        return calibrate(engine, validation)

    monkeypatch.setattr(fit, "AudioVisualDataset", Noted)
    monkeypatch.setattr(fit, "calibrate", calibrated)
    held_out = read_manifest(write_squares(tmp_path / "val", 6, seed=4, split="val", seconds=0.3))
    small = {"width_visual": 4, "width_audio": 4, "dim": 16, "depth": 1, "heads": 4}
    config = preset("avgn-tiny", classes=CLASSES, image_size=(32, 32), window_seconds=0.3, **small)
    settings = TrainConfig.from_options(steps=2, batch_size=4, visual_weights="random", zoom=2.0, mixture=(2, 2))
    fit.train(config, manifest, held_out, tmp_path / "o", settings, progress=False)
    (scenes,) = made
    assert not scenes.train and scenes.augmentation == NONE and scenes.items == held_out.items
    assert seen["validation"] is held_out
    assert scenes[Key(0, 1)].image.shape == (32, 32, 3) and scenes[Key(0, 1)].order == scenes[Key(3, 1)].order


def drawn(how: Augmentation, image: np.ndarray, count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([augment_image(image, (32, 32), how, rng) for _ in range(count)])


def only(**values: float) -> Augmentation:
    return Augmentation(**(vars(NONE) | values))


def test_light_changes_gain_and_offset_within_its_share() -> None:
    found = {}
    for value in (0, 100, 200):
        found[value] = drawn(only(light=0.2), np.full((32, 32, 3), value, np.uint8))[:, 0, 0, 0].astype(int)
    # 255 * 0.1 of offset at most, 0.8 to 1.2 of gain
    assert found[0].min() == 0 and 22 <= found[0].max() <= 25
    assert 55 <= found[100].min() <= 66 and 134 <= found[100].max() <= 145
    assert 135 <= found[200].min() <= 148 and found[200].max() == 255
    assert np.std(found[100]) == pytest.approx((20**2 / 3 + 25.5**2 / 3) ** 0.5, rel=0.15)


def test_zoom_crops_at_least_the_share_that_it_says_and_flip_mirrors_half() -> None:
    # a picture that is twice as large as the model's; its value says the column
    ramp = np.broadcast_to((np.arange(64) * 4).astype(np.uint8)[None, :, None], (64, 64, 3)).copy()
    rows = drawn(only(zoom=2.0), ramp)[:, 16, :, 0].astype(int)
    widths = (rows[:, -1] - rows[:, 0]) / 4 / 31 * 32
    # the smallest crop has the model's size, which is 1 / zoom of the side; the largest is the whole picture
    assert 31 <= widths.min() < 34 and 62 < widths.max() <= 65.5
    assert rows[:, 0].min() == pytest.approx(0, abs=4) and rows[:, -1].max() == pytest.approx(252, abs=4)
    assert (widths > 0).all()
    mirrored = drawn(only(flip=0.5), ramp[:32, :32])[:, 16, :, 0].astype(int)
    assert (mirrored[:, 0] > mirrored[:, -1]).mean() == pytest.approx(0.5, abs=0.1)
    assert (drawn(only(flip=1.0), ramp[:32, :32], 5) == ramp[:32, :32][:, ::-1]).all()


@pytest.mark.parametrize("name", ["silent", "off_screen"])
def test_chances_of_a_mixture_are_those_that_were_asked_for(name: str, manifest: Manifest) -> None:
    options: dict[str, Any] = {name: 0.3}
    scenes = 2 if name == "silent" else 1

    def sounds(mixing: Mixing) -> list[np.ndarray]:
        data = AudioVisualDataset(manifest, CONFIG, train=True, augmentation=NONE, mixing=mixing, cache=True)
        return [data[Key(epoch, n, scenes)].waveform for epoch in range(40) for n in range(12)]

    # the same draws otherwise: a sound differs where a picture was muted, or one more was heard
    pairs = zip(sounds(Mixing(**options)), sounds(Mixing()), strict=True)
    changed = np.mean([not np.array_equal(one, other) for one, other in pairs])
    assert changed == pytest.approx(0.3, abs=0.06)
    if name == "silent":
        data = AudioVisualDataset(manifest, CONFIG, train=True, augmentation=NONE, cache=True)
        alone = [data[Key(epoch, n, 1)].waveform for epoch in range(40) for n in range(12)]
        # always muted leaves the first scene's own sound, never muted never does
        assert all(map(np.array_equal, sounds(Mixing(silent=1.0)), alone))
        assert not any(map(np.array_equal, sounds(Mixing()), alone))


def test_what_is_muted_is_not_in_the_sum_and_sources_are_shuffled() -> None:
    def scene(value: int, *classes: int) -> Scene:
        kinds = frozenset(classes)
        image, waveform = np.full((2, 2, 3), value, np.uint8), np.full(4, float(value), np.float32)
        return Scene(image=image, waveform=waveform, sounding=kinds, visible=kinds | {9})

    shown, unseen = [scene(1, 0), scene(2, 1, 2)], scene(4, 3)
    sample = mix(shown, [True, False], unseen, None)
    assert sample.waveform.tolist() == [5.0] * 4 and sample.image[0, :, 0].tolist() == [1, 1, 2, 2]
    assert (sample.sounding, sample.visible, sample.order) == ((0, 3), (0, 1, 2, 9), (0,))
    both = [mix(shown, [True, True], None, np.random.default_rng(seed)).order for seed in range(40)]
    assert len(set(both)) == 6 and {frozenset(order) for order in both} == {frozenset((0, 1, 2))}
    assert mix(shown, [True, True], None, None).order == (0, 1, 2)
    assert not mix(shown, [False, False], None, None).waveform.any()


def test_labels_of_a_batch_say_what_sounds_and_what_is_visible_apart() -> None:
    from avgn.data.sample import Sample

    def sample(sounding: tuple[int, ...], visible: tuple[int, ...]) -> Sample:
        order = tuple(sorted(set(sounding) & set(visible)))
        image, waveform = np.zeros((2, 2, 3), np.uint8), np.zeros(4, np.float32)
        return Sample(image=image, waveform=waveform, sounding=sounding, visible=visible, order=order)

    labels = collate([sample((0, 2), (2, 3)), sample((1,), (0,))], 4).labels
    assert labels.sounding.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    assert labels.visible.tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]
    assert labels.order.tolist() == [[2], [0]] and labels.mask.tolist() == [[True], [False]]


ASKED: list[tuple[str, Callable[[TrainConfig], Any], Any]] = [
    ("batch_size", lambda found: found.batch_size, 0),
    ("learning_rate", lambda found: found.learning_rate, 0.0),
    ("auxiliary", lambda found: found.auxiliary, -0.5),
    ("warmup_steps", lambda found: found.warmup_steps, -1),
    ("dropout", lambda found: found.dropout, 1.0),
    ("momentum", lambda found: found.momentum, 1.0),
    ("schedule", lambda found: found.schedule, "linear"),
    ("keep", lambda found: found.keep, "first"),
]


@pytest.mark.parametrize(("name", "of", "wrong"), ASKED, ids=[row[0] for row in ASKED])
def test_a_setting_out_of_range_is_named(name: str, of: Callable[[TrainConfig], Any], wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must .*got {wrong!r}"):
        TrainConfig(**{name: wrong})
    assert of(TrainConfig()) != wrong
