"""The DFT convolution against torch.stft, SciPy and torchaudio, judged in power as docs/method.md, section 2 asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import signal

from avgn.config import preset
from avgn.frontend import Spectrogram

ROOT = Path(__file__).resolve().parents[2]
RATE = 22_050


def sounds(samples: int = 3 * RATE) -> np.ndarray:
    rng = np.random.default_rng(0)
    time = np.arange(samples) / RATE
    tones = sum(np.sin(2 * np.pi * f * time) for f in (110, 441.3, 3000, 9500))
    loud = 0.2 * tones + 0.05 * rng.standard_normal(samples)
    quiet = 1e-3 * rng.standard_normal(samples)
    offset = 0.3 + 0.1 * np.sin(2 * np.pi * 700 * time)
    return np.stack([loud, quiet, offset]).astype(np.float32)


def paper_power(waveform: np.ndarray) -> np.ndarray:
    found = torch.stft(
        torch.from_numpy(waveform).double(),
        512,
        hop_length=220,
        window=torch.hann_window(512, periodic=True, dtype=torch.float64),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    return (found.abs() ** 2).numpy()[:, :, : waveform.shape[1] // 220]


def release_power(waveform: np.ndarray) -> np.ndarray:
    return np.asarray(signal.spectrogram(waveform.astype(np.float64), RATE, nperseg=512, noverlap=274)[2])


@pytest.mark.parametrize("form", ["_by_convolution", "_by_products"])
@pytest.mark.parametrize(("kind", "truth", "frames"), [("paper", paper_power, 300), ("release", release_power, 276)])
def test_power_equals_a_float64_reference(kind: str, truth: object, frames: int, form: str) -> None:
    """Both forms: convolutions, as on the CPU, and products of cut frames, as on a GPU."""
    module = Spectrogram(preset("avgn-resnet18", frontend=kind))
    waveform = sounds()
    power = module._transform(torch.from_numpy(waveform), getattr(module, form))
    found = power.numpy().astype(np.float64)
    expected = truth(waveform)  # type: ignore[operator]
    assert found.shape == expected.shape == (3, 257, frames)
    for mine, theirs in zip(found, expected, strict=True):
        peak = theirs.max()
        assert np.abs(mine - theirs).max() <= 1e-6 * peak, kind
        strong = theirs > 1e-4 * peak
        np.testing.assert_allclose(np.log(mine[strong] + 1e-7), np.log(theirs[strong] + 1e-7), atol=2e-3)


def test_log_and_scale_of_both_kinds() -> None:
    waveform = torch.from_numpy(sounds(RATE))
    paper = Spectrogram(preset("avgn-tiny", spectrogram_mean=-4.0, spectrogram_std=3.0))
    torch.testing.assert_close(paper(waveform)[:, 0], (torch.log(paper.power(waveform) + 1e-7) + 4.0) / 3.0)
    assert paper(waveform).shape == (3, 1, 257, 100)
    release = Spectrogram(preset("avgn-resnet18", frontend="release"))
    torch.testing.assert_close(release(waveform)[:, 0], torch.log(release.power(waveform) + 1e-7) / 12)


def test_autocast_does_not_reach_the_front_end() -> None:
    module = Spectrogram(preset("avgn-tiny"))
    waveform = torch.from_numpy(sounds(RATE))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(waveform)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(waveform))


def test_silence_is_finite_and_wrong_shapes_are_refused() -> None:
    module = Spectrogram(preset("avgn-tiny"))
    assert torch.isfinite(module(torch.zeros(1, RATE))).all()
    with pytest.raises(ValueError, match=r"must be \[B,T\]"):
        module(torch.zeros(RATE))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["legacy", "new", "untouched"])
def test_whole_float32_leaves_the_settings_as_they_were(by: str) -> None:
    """Products have all bits inside, and outside what the program asked for, by either of PyTorch's two ways."""
    code = (
        "import sys, torch\n"
        "from avgn.frontend import whole_float32\n"
        "matmul = torch.backends.cuda.matmul\n"
        "if sys.argv[1] == 'legacy': torch.set_float32_matmul_precision('high')\n"
        "if sys.argv[1] == 'new': matmul.fp32_precision = 'tf32'\n"
        "before = matmul.fp32_precision\n"
        "with whole_float32():\n"
        "    assert not matmul.allow_tf32 and matmul.fp32_precision != 'tf32'\n"
        "assert matmul.fp32_precision == before\n"
        "if sys.argv[1] == 'legacy': assert torch.get_float32_matmul_precision() == 'high' and matmul.allow_tf32\n"
        "print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, by], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stderr
