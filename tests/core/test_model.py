"""The model: shapes, presets, every option alone, and docs/method.md, section 6 against a loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.checkpoint import load_model, save_model
from avgn.config import Config, preset, system_in
from avgn.engine import describe
from avgn.grouping import AudioGrouping
from avgn.losses import compute_losses
from avgn.model import AVGN, LocalizerModel, TwoHalves, build_model
from avgn.released import ReleasedAVGN
from avgn.runtime.bundle_schema import Thresholds
from avgn.types import AudioSources, Labels

CLASSES = ("a", "b", "c", "d")
SMALL: dict[str, Any] = {
    "classes": CLASSES,
    "image_size": (64, 96),
    "width_visual": 4,
    "width_audio": 4,
    "dim": 16,
    "depth": 2,
    "heads": 4,
    "window_seconds": 0.5,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "stride-32": {"visual_stride": 32},
    "literal": {"attention": "literal"},
    "hard": {"assignment": "hard"},
    "audio-eps": {"audio_gate": "eps"},
    "gate-grouped": {"visual_gate": "grouped"},
    "gate-token": {"visual_gate": "token"},
    "gate-none": {"visual_gate": "none"},
    "nth": {"negatives": "nth", "visual_gate": "grouped"},
    "asymmetric": {"negatives": "nth", "symmetric": False},
    "mean": {"class_reduction": "mean"},
    "release-frontend": {"frontend": "release"},
    "tokens": {"ablation": "tokens"},
    "grouping": {"ablation": "grouping"},
    "neither": {"ablation": "neither", "visual_gate": "none"},
}


def small(**options: Any) -> AVGN:
    torch.manual_seed(0)
    return AVGN(preset("avgn-tiny", **(SMALL | options)))


def inputs(model: AVGN, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    waveform = torch.randn(batch, model.config.window_samples, generator=generator)
    height, width = model.config.image_size
    return waveform, torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)


def labels() -> Labels:
    sounding = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]).float()
    visible = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0]]).float()
    order = torch.tensor([[0, 0], [1, 0], [0, 0]])
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    return Labels(sounding=sounding, visible=visible, order=order, mask=mask)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_gives_maps_and_gradients(options: dict[str, Any]) -> None:
    model = small(**options)
    audio, image = model(*inputs(model))
    maps = model.localize(audio, image)
    assert maps.shape == (3, model.config.num_maps, *model.config.grid)
    assert maps.abs().max() <= 1 + 1e-5
    losses = compute_losses(audio, image, labels(), model.token_logits(), model.config)
    losses.total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("token_gate"):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_presets_have_their_sizes() -> None:
    tiny = AVGN(preset("avgn-tiny", classes=tuple("abcdefghij")))
    assert sum(p.numel() for p in tiny.parameters()) <= 3_000_000
    assert tiny.config.window_seconds == 1.0 and tiny.config.dim == 128
    paper = preset("avgn-resnet18")
    assert (paper.dim, paper.depth, paper.image_size, paper.grid, paper.window_samples) == (
        512, 3, (224, 224), (7, 7), 66_150,
    )  # fmt: skip
    assert paper.temperature == 0.03 and paper.num_classes == 37


def test_unknown_presets_and_senseless_combinations_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of avgn-resnet18"):
        preset("avgn-huge")
    for wrong in (
        {"bogus": 1},
        {"visual_gate": "both"},
        {"ablation": "neither", "visual_gate": "grouped"},
        {"ablation": "tokens", "assignment": "hard"},
        {"ablation": "grouping", "attention": "literal"},
        {"assignment": "hard", "audio_gate": "eps"},
        {"image_size": (100, 96)},
        {"dim": 30},
        {"classes": ("a", "a")},
        {"temperature": 0.0},
    ):
        with pytest.raises(ValueError, match=r".+: .+"):
            preset("avgn-tiny", **(SMALL | wrong))


def test_config_survives_json() -> None:
    config = preset("avgn-tiny", **SMALL)
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown entries"):
        Config.from_dict(config.to_dict() | {"new": 1})


def test_an_ablation_is_a_variant_in_files() -> None:
    config = preset("avgn-tiny", **(SMALL | {"ablation": "tokens"}))
    written = config.to_dict()
    assert written["variant"] == "tokens" and "ablation" not in written
    assert Config.from_dict(written) == config == preset("avgn-tiny", **(SMALL | {"variant": "tokens"}))
    today = {"ablation" if name == "variant" else name: value for name, value in written.items()}
    assert Config.from_dict(today) == config
    with pytest.raises(ValueError, match="variant and ablation are the same entry: leave variant out"):
        Config.from_dict(written | {"ablation": "tokens"})


def test_the_released_variant_of_older_files_is_a_system() -> None:
    config = preset("avgn-release", **SMALL)
    old = config.to_dict() | {"system": "avgn", "variant": "released"}
    assert Config.from_dict(old) == config and config.system == "avgn-released" and config.ablation == "both"
    assert system_in(old) is system_in(config.to_dict()) is config.kind
    assert isinstance(build_model(Config.from_dict(old)), ReleasedAVGN)
    sized = preset("avgn-tiny", **(SMALL | {"system": "avgn-released"}))
    assert sized.visual_gate == "none" and sized.name == "avgn-released-tiny"
    with pytest.raises(ValueError, match="visual_gate is an entry of system avgn alone: leave it at 'none'"):
        preset("avgn-release", **(SMALL | {"visual_gate": "grouped"}))


def test_names_of_before_are_kept_for_a_release() -> None:
    assert TwoHalves is LocalizerModel
    model = small().eval()
    waveform, picture = inputs(model, 2)
    audio, image = model(waveform, picture)
    labels = Labels(
        sounding=torch.eye(4)[:2],
        visible=torch.eye(4)[:2],
        order=torch.tensor([[0], [1]]),
        mask=torch.ones(2, 1).bool(),
    )
    with pytest.deprecated_call(match="compute is called losses now"):
        assert torch.equal(model.compute(audio, image, labels).total, model.losses(audio, image, labels).total)


def test_maps_are_cosines_of_the_encoders_own_cells() -> None:
    model = small().eval()
    waveform, picture = inputs(model)
    with torch.no_grad():
        audio, image = model(waveform, picture)
        maps = model.localize(audio, image)
        cells, grid = model.visual_encoder(model.normalize(picture))
    torch.testing.assert_close(image.cells, cells)
    torch.testing.assert_close(cells.norm(dim=2), torch.ones(cells.shape[:2]))
    assert image.gate is not None
    for b, k in ((0, 0), (1, 3), (2, 2)):
        for p in (0, 5, cells.shape[1] - 1):
            truth = torch.nn.functional.cosine_similarity(audio.embedding[b, k], cells[b, p] * image.gate[b, k], dim=0)
            torch.testing.assert_close(maps[b, k, p // grid[1], p % grid[1]], truth)


def test_sources_are_handed_over_with_length_one_but_by_the_published_model() -> None:
    embedding = 3 * torch.randn(2, 4, 16)
    found = small().hand_over(AudioSources(embedding=embedding, logit=None))
    torch.testing.assert_close(found, embedding / embedding.norm(dim=2, keepdim=True))
    released = build_model(preset("avgn-release", **SMALL))
    assert isinstance(released, ReleasedAVGN)
    assert released.hand_over(AudioSources(embedding=embedding, logit=None)) is embedding


def test_a_checkpoint_keeps_thresholds_of_sound_and_sight_apart(tmp_path: Path) -> None:
    model = small()
    neutral = describe(model)
    assert neutral.thresholds == Thresholds(audio=(0.5,) * 4, visual=(0.5,) * 4)
    model.thresholds = Thresholds(audio=(0.1, 0.2, 0.3, 0.4), visual=(0.5, 0.6, 0.7, 0.8))
    loaded = load_model(save_model(model, tmp_path, training={"steps": 3}))
    assert loaded.thresholds == model.thresholds == describe(loaded).thresholds
    assert not loaded.training and loaded.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    info = describe(loaded)
    assert (info.classes, info.image_size, info.grid) == (CLASSES, (64, 96), (4, 6))
    assert (info.sample_rate, info.window_seconds, info.has_presence) == (22_050, 0.5, True)


def test_forward_features_equals_the_two_halves() -> None:
    model = small().eval()
    waveform, picture = inputs(model)
    with torch.no_grad():
        found = model.forward_features(model.normalize(picture), model.frontend(waveform))
        audio, image = model(waveform, picture)
        torch.testing.assert_close(found.scores, model.localize(audio, image))
        assert found.audio_prob is not None and audio.logit is not None
        torch.testing.assert_close(found.audio_prob, audio.logit.sigmoid())


def test_audio_grouping_is_the_closed_form_for_one_feature() -> None:
    grouping = AudioGrouping(small().config)
    features, tokens = torch.randn(2, 1, 16), torch.randn(2, 4, 16)
    with torch.no_grad():
        found = grouping(features, tokens)
        weights = torch.ones(2, 1, 4)
        value = features @ grouping.value.weight.T
        truth = tokens + (weights.transpose(1, 2) @ value) @ grouping.out.weight.T
    torch.testing.assert_close(found, truth)


def test_ablation_rows_have_the_parts_they_name() -> None:
    tokens = small(ablation="tokens", visual_gate="grouped").eval()
    picture = inputs(tokens)[1]
    with torch.no_grad():
        cells, _ = tokens.visual_encoder(tokens.normalize(picture))
        _, attended = tokens.visual_transformer(cells, tokens.tokens)
        torch.testing.assert_close(tokens.encode_image(picture).gate, attended)
    grouping = small(ablation="grouping")
    assert not grouping.tokens.requires_grad and grouping.token_logits() is None
    assert not any("blocks" in name for name, _ in grouping.named_parameters())
    neither = small(ablation="neither", visual_gate="none")
    assert {name.split(".")[0] for name, _ in neither.named_parameters()} == {"audio_encoder", "visual_encoder"}


def test_image_net_weights_file_is_loaded_and_a_wrong_one_is_refused(tmp_path: Any) -> None:
    from torchvision.models import resnet18

    from avgn.encoders import ResNet18, VisualEncoder, load_visual_weights

    torch.manual_seed(3)
    theirs = resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    encoder = VisualEncoder(ResNet18(3), 32).eval()
    assert load_visual_weights(encoder, str(tmp_path / "weights.pth")).endswith("weights.pth")
    x = torch.randn(1, 3, 64, 64)
    layers = torch.nn.Sequential(*list(theirs.eval().children())[:-2])
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone(x), layers(x))
    with pytest.raises(ValueError, match="don't fit a ResNet-18 of this width"):
        load_visual_weights(VisualEncoder(ResNet18(3, 16), 32), str(tmp_path / "weights.pth"))
    with pytest.raises(ValueError, match="are a folder, not a file"):
        load_visual_weights(encoder, str(tmp_path))
    with pytest.raises(ValueError, match="don't exist"):
        load_visual_weights(encoder, str(tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="can't be read"):
        load_visual_weights(encoder, str(tmp_path / "bad.pth"))
