"""The optimized model computes the same as the core, with fewer operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avgn.config import preset
from avgn.engine import TorchEngine
from avgn.export.halves import HalvesEngine
from avgn.export.optimize import optimize
from avgn.export.spectrum import FoldedSpectrogram
from avgn.export.variants import operations
from avgn.export.verify import compare, rendered_batches
from avgn.frontend import Spectrogram
from avgn.model import AVGN
from tests.export.models import small_model

OPTIONS: list[dict[str, Any]] = [
    {},
    {"visual_gate": "grouped", "depth": 3},
    {"visual_gate": "none", "audio_gate": "eps"},
    {"assignment": "hard", "visual_gate": "grouped"},
    {"attention": "literal"},
    {"variant": "tokens", "visual_gate": "grouped"},
    {"variant": "grouping", "visual_gate": "grouped"},
    {"variant": "neither", "visual_gate": "none"},
    {"variant": "released", "visual_gate": "none", "frontend": "release"},
    {"classes": tuple(f"c{index}" for index in range(40))},
]


def model_of(options: dict[str, Any]) -> AVGN:
    model = small_model(**options)
    # larger weights than at the start: every branch must matter
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(8)
                if module.bias is not None:
                    module.bias.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_gives_the_same(options: dict[str, Any]) -> None:
    model = model_of(options).double()
    # float64 tells a wrong formula from rounding
    for name in ("image_mean", "image_std"):
        setattr(model, name, getattr(model, name).double())
    core = TorchEngine(model)
    batches = rendered_batches(core.info, (3,))
    metrics = compare(core, HalvesEngine(optimize(model)), batches)
    for name in ("max_abs_sources", "max_abs_audio_prob", "max_abs_maps", "max_abs_visual_prob"):
        assert metrics[name] <= 1e-6, metrics


def test_the_model_itself_is_not_changed() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale = model.image_std.clone()
    optimize(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.image_std, scale)


def test_fewer_operations_are_left() -> None:
    model = model_of({"classes": tuple(f"c{index}" for index in range(40))})
    for line in operations(model, optimize(model)):
        before, after = (float(word) for word in line.replace(",", "").split() if word.replace(".", "").isdigit())
        assert after < before, line
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimize(model).modules())


@pytest.mark.parametrize("samples", [22_050, 66_150, 5_003])
def test_the_folded_front_end_is_a_short_time_fourier_transform(samples: int) -> None:
    config = preset("avgn-tiny", window_seconds=samples / 22_050)
    sound = torch.randn(2, samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    folded = FoldedSpectrogram(Spectrogram(config).double())
    window = torch.hann_window(512, dtype=torch.float64)
    bins = torch.stft(sound, 512, 220, window=window, pad_mode="reflect", return_complex=True).abs().square()
    expected = (torch.log(bins[:, :, : samples // 220] + 1e-7) + 5.0) / 5.0
    assert torch.allclose(folded(sound), expected[:, None], atol=1e-9)


def test_the_folded_front_end_takes_a_quarter_of_the_operations() -> None:
    spectrogram = Spectrogram(preset("avgn-tiny"))
    sound = torch.zeros(1, 22_050)
    counts = []
    for module in (spectrogram, FoldedSpectrogram(spectrogram)):
        with FlopCounterMode(display=False) as counter:
            module(sound)
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.26 * counts[0]
