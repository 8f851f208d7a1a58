"""Every system becomes a bundle by the real command, gives the model's maps in ONNX Runtime, and streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from avgn.checkpoint import load_model, save_model
from avgn.cli import main
from avgn.engine import TorchEngine
from avgn.model import LocalizerModel, build_model
from avgn.runtime import Bundle, Localizer
from avgn.systems import AVGN, SYSTEMS
from tests.baselines.scenes import small
from tests.squares import CLASSES

OTHERS = [name for name in SYSTEMS if name != AVGN]
CHOSEN: dict[str, dict[str, Any]] = {"ez-vsl": {"alpha": 0.4}, "mix-and-localize": {"sources": 3}}


def model_of(system: str) -> LocalizerModel:
    torch.manual_seed(0)
    model = build_model(small(system, **CHOSEN.get(system, {})))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
        if system == "dsol":
            # what clustering would find
            dictionary = model.get_buffer("dictionary")
            dictionary.copy_(torch.nn.functional.normalize(torch.randn_like(dictionary), dim=1))
    return model.eval()


@pytest.mark.parametrize("system", OTHERS)
def test_a_system_exports_and_streams(system: str, tmp_path: Path) -> None:
    kind = SYSTEMS[system]
    model = load_model(save_model(model_of(system), tmp_path / "c"))
    assert main(["export", str(tmp_path / "c"), str(tmp_path / "b")]) == 0
    bundle = Bundle.load(tmp_path / "b")
    assert bundle.info.has_presence == kind.class_aware
    count = {"one": 1, "classes": len(CLASSES), "sources": model.config.num_maps}[kind.maps]
    assert len(bundle.classes) == count and bundle.info.model["config"]["system"] == system
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal((3, model.config.window_samples))).astype(np.float32)
    image = rng.integers(0, 256, (3, 96, 64, 3), dtype=np.uint8)
    audio, picture = (
        onnxruntime.InferenceSession(str(bundle.graph(bundle.variants[0], half)), providers=["CPUExecutionProvider"])
        for half in ("audio", "image")
    )
    sources, heard = audio.run(None, {"waveform": waveform})
    maps, seen = picture.run(None, {"image": image, "sources": sources})
    core = TorchEngine(model)
    truth = core.run_audio(waveform)
    truth |= core.run_image(image, truth["sources"])
    assert maps.shape == (3, count, 6, 4) and np.ptp(maps) > 1e-4
    for found, name in ((sources, "sources"), (heard, "audio_prob"), (maps, "maps"), (seen, "visual_prob")):
        np.testing.assert_allclose(found, truth[name], atol=1e-4)
    stream = Localizer.load(bundle).open_stream(mode="file")
    stream.push_audio(0.1 * rng.standard_normal(22_050).astype(np.float32), 22_050, 0.0)
    results = stream.push_frame(image[0], 0.1) + stream.flush()
    assert len(results) == 1 and results[0].maps.shape == (count, *model.config.grid)
