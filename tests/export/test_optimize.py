"""The optimized model computes the same as the core, with fewer operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avgn.config import preset
from avgn.engine import TorchEngine
from avgn.export.graphs import MIN_OPSET, write_graphs
from avgn.export.halves import AudioHalf, HalvesEngine, ImageHalf
from avgn.export.inputs import half_of
from avgn.export.mixed import to_mixed
from avgn.export.optimize import optimize
from avgn.export.samples import InputBatch
from avgn.export.spectrum import FoldedSpectrogram, FramedSpectrogram
from avgn.export.variants import operations
from avgn.export.verify import compare, rendered_batches
from avgn.frontend import Spectrogram, _hann_basis
from avgn.model import AVGN
from tests.export.models import small_model

OPTIONS: list[dict[str, Any]] = [
    {},
    {"visual_gate": "grouped", "depth": 3},
    {"visual_gate": "none", "audio_gate": "eps"},
    {"assignment": "hard", "visual_gate": "grouped"},
    {"attention": "literal"},
    {"ablation": "tokens", "visual_gate": "grouped"},
    {"ablation": "grouping", "visual_gate": "grouped"},
    {"ablation": "neither", "visual_gate": "none"},
    {"system": "avgn-released", "visual_gate": "none", "frontend": "release"},
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


def in_doubt(model: AVGN, batch: InputBatch) -> AVGN:
    """The model with presence heads that are unsure of all of a batch: saturated ones would hide what lies before."""
    if not model.has_presence:
        return model
    with torch.no_grad():
        heard, seen = model(torch.from_numpy(batch.waveform).double(), torch.from_numpy(batch.image))
        for head, logit in ((model.audio_presence, heard.logit), (model.visual_presence, seen.logit)):
            spread = logit.std().clamp_min(1e-3 * logit.abs().max())
            head.weight.div_(spread)
            head.bias.sub_(logit.mean()).div_(spread)
    return model


def exact_model(options: dict[str, Any]) -> tuple[AVGN, list[InputBatch]]:
    """In float64, which tells a wrong formula from rounding, and scenes for it."""
    model = model_of(options).double()
    for name in ("image_mean", "image_std"):
        setattr(model, name, getattr(model, name).double())
    batches = rendered_batches(TorchEngine(model).info, (3,))
    return in_doubt(model, batches[0]), batches


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_gives_the_same(options: dict[str, Any]) -> None:
    model, batches = exact_model(options)
    core, engine = TorchEngine(model), HalvesEngine(optimize(model))
    metrics = compare(core, engine, batches)
    for name in ("max_abs_sources", "max_abs_maps", "max_abs_visual_prob"):
        assert metrics[name] <= 1e-6, metrics
    # the front-end's tables are rounded to float32, and the head is some thirty times as steep as a model's
    assert metrics["max_abs_audio_prob"] <= 1e-5, metrics
    if model.has_presence:
        heard = core.run_audio(batches[0].waveform)
        for prob in (heard["audio_prob"], core.run_image(batches[0].image, heard["sources"])["visual_prob"]):
            assert 0.01 < np.median(prob) < 0.99


@pytest.mark.parametrize("options", [OPTIONS[at] for at in (0, 1, 3, 6, 9)], ids=str)
def test_a_fault_in_any_joined_matrix_would_be_seen(options: dict[str, Any]) -> None:
    """What the test above compares depends on each of them, also with more classes than cells."""
    model, batches = exact_model(options)
    core = TorchEngine(model)
    frozen = optimize(model)
    parts = {
        name: value for name, value in frozen.model.named_parameters() if "query_key" in name or "value_out" in name
    }
    assert len(parts) == 3
    for name, weight in parts.items():
        kept = weight.detach().clone()
        # as the wrong way round
        weight.copy_(kept.T)
        metrics = compare(core, HalvesEngine(frozen), batches)
        moved = max(metrics[f"max_abs_{output}"] for output in ("sources", "audio_prob", "maps", "visual_prob"))
        assert moved > 1e-3, name
        weight.copy_(kept)


def test_the_model_itself_is_not_changed() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale = model.image_std.clone()
    optimize(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.image_std, scale)


def test_a_model_that_was_not_optimized_is_not_exported(tmp_path: Path) -> None:
    """Its first convolution does not divide by the pixels' deviation, so its graphs would be wrong."""
    with pytest.raises(TypeError, match="got AVGN"):
        # mypy refuses it as well: it would call an ignore without an error unused
        AudioHalf(small_model())  # type: ignore[arg-type]
    model: Any = small_model()
    for export in (
        AudioHalf,
        ImageHalf,
        HalvesEngine,
        to_mixed,
        lambda given: half_of(given, "image"),
        lambda given: write_graphs(given, tmp_path, opset=MIN_OPSET, facts={}),
    ):
        with pytest.raises(TypeError, match=r"only an optimized model is exported, got AVGN: give optimize\(model\)"):
            export(model)
    assert not list(tmp_path.iterdir())


def test_fewer_operations_are_left() -> None:
    model = model_of({"classes": tuple(f"c{index}" for index in range(40))})
    for line in operations(model, optimize(model)):
        before, after = (float(word) for word in line.replace(",", "").split() if word.replace(".", "").isdigit())
        assert after < before, line
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimize(model).model.modules())


@pytest.mark.parametrize("form", [FoldedSpectrogram, FramedSpectrogram])
@pytest.mark.parametrize("samples", [22_050, 66_150, 5_003])
def test_other_forms_of_the_front_end_are_short_time_fourier_transforms(
    samples: int, form: type[FoldedSpectrogram | FramedSpectrogram]
) -> None:
    config = preset("avgn-tiny", window_seconds=samples / 22_050)
    sound = torch.randn(2, samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spectrogram = Spectrogram(config).double()
    # the basis was rounded to float32, and the folded form makes its own
    spectrogram.basis.copy_(torch.from_numpy(_hann_basis())[:, None])
    found = form(spectrogram)(sound)
    window = torch.hann_window(512, dtype=torch.float64)
    bins = torch.stft(sound, 512, 220, window=window, pad_mode="reflect", return_complex=True).abs().square()
    expected = (torch.log(bins[:, :, : samples // 220] + 1e-7) + 5.0) / 5.0
    assert torch.allclose(found, expected[:, None], atol=1e-9)


def test_no_form_of_the_front_end_rounds_much_more_than_the_model() -> None:
    """Loud and quiet tones at once: what is lost of the loud one drowns the quiet one's neighbours."""
    spectrogram, exact = Spectrogram(preset("avgn-tiny")), Spectrogram(preset("avgn-tiny")).double()
    exact.basis.copy_(torch.from_numpy(_hann_basis())[:, None])
    time = torch.arange(22_050) / 22_050
    noise = torch.randn(2, 22_050, generator=torch.Generator().manual_seed(0))
    tones = 0.8 * torch.sin(2 * torch.pi * 1000 * time) + 1e-3 * torch.sin(2 * torch.pi * 5000 * time)
    for sound in (0.1 * noise, 1e-3 * noise, tones[None]):
        truth = exact(sound.double())
        errors = [
            float((module(sound) - truth).abs().max())
            for module in (spectrogram, FoldedSpectrogram(spectrogram), FramedSpectrogram(spectrogram))
        ]
        assert max(errors[1:]) < 4 * errors[0] + 1e-5, errors


def test_the_framed_front_end_is_one_product() -> None:
    """Every small kernel costs a GPU what the product does."""
    spectrogram, sound = Spectrogram(preset("avgn-tiny")), torch.zeros(1, 66_150)
    products, kernels = {}, {}
    for form in (FoldedSpectrogram, FramedSpectrogram):
        with torch.profiler.profile() as profile:
            form(spectrogram)(sound)
        names = [event.name for event in profile.events()]
        products[form] = names.count("aten::bmm")
        # what moves or computes numbers; views do neither
        kernels[form] = sum(
            names.count(f"aten::{name}") for name in ("bmm", "copy_", "cat", "add", "sub", "mul", "sum", "log", "flip")
        )
    assert products == {FoldedSpectrogram: 8, FramedSpectrogram: 1}
    assert kernels[FramedSpectrogram] < 0.4 * kernels[FoldedSpectrogram], kernels


def test_the_folded_front_end_takes_a_quarter_of_the_operations() -> None:
    spectrogram = Spectrogram(preset("avgn-tiny"))
    sound = torch.zeros(1, 22_050)
    counts = []
    for module in (spectrogram, FoldedSpectrogram(spectrogram)):
        with FlopCounterMode(display=False) as counter:
            module(sound)
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.26 * counts[0]
