"""The audio front-end: log power spectrograms by a real-valued convolution with the DFT basis.

One module trains, exports and builds in every engine: no complex numbers, no STFT operator. On a GPU the same short
sums are matrix products of cut frames: cuDNN takes ten times as long for a convolution of one channel and stride 220.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from avgn.config import Config

N_FFT = 512
HOP_PAPER = 220
HOP_RELEASE = N_FFT - 274
LOG_OFFSET = 1e-7
NUM_SUMS = 8


class Spectrogram(nn.Module):
    """waveform [B,T] -> log-spectrogram [B,1,257,frames], always in float32 (docs/method.md, section 2).

    "paper": periodic Hann window of 512, hop 220, centred with reflect padding, the first T // 220 columns,
    (ln(power + 1e-7) - mean) / std. "release": scipy.signal.spectrogram(x, 22050, nperseg=512, noverlap=274),
    ln(density + 1e-7) / 12.
    """

    basis: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.kind = config.frontend
        paper = config.frontend == "paper"
        self.hop = HOP_PAPER if paper else HOP_RELEASE
        self.mean = config.spectrogram_mean if paper else 0.0
        self.std = config.spectrogram_std if paper else 12.0
        basis = _hann_basis() if paper else _density_basis(config.sample_rate)
        self.register_buffer("basis", torch.from_numpy(basis).to(torch.float32)[:, None], persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Raises ValueError for a waveform that is not [B,T] or shorter than a window."""
        if waveform.dim() != 2:
            raise ValueError(f"waveform must be [B,T], got {tuple(waveform.shape)}: mix channels to mono")
        power = self._power(waveform)
        return ((torch.log(power + LOG_OFFSET) - self.mean) / self.std)[:, None]

    def power(self, waveform: Tensor) -> Tensor:
        """Return the power (or density) before the logarithm, [B,257,frames]."""
        return self._power(waveform)

    def _power(self, waveform: Tensor) -> Tensor:
        # TF32 or bf16 would put an error of 0.1-0.4 into the logarithm
        with torch.autocast(waveform.device.type, enabled=False):
            if waveform.is_cuda:
                with whole_float32():
                    return self._transform(waveform, self._by_products)
            return self._transform(waveform, self._by_convolution)

    def _transform(self, waveform: Tensor, sums_of: Callable[[Tensor], list[Tensor]]) -> Tensor:
        signal = waveform.to(self.basis.dtype)[:, None]
        if self.kind == "paper":
            signal = nn.functional.pad(signal, (N_FFT // 2, N_FFT // 2), mode="reflect")
        # a float32 accumulator loses 3e-6 of the power over 512 terms: short sums are added up instead
        sums = sums_of(signal)
        while len(sums) > 1:
            sums = [one + other for one, other in zip(sums[::2], sums[1::2], strict=True)]
        parts = sums[0][:, :, :-1] if self.kind == "paper" else sums[0]
        real, imaginary = parts.chunk(2, dim=1)
        return real * real + imaginary * imaginary

    def _by_convolution(self, signal: Tensor) -> list[Tensor]:
        """signal [B,1,L] -> NUM_SUMS parts of the transform, [B,514,frames] each."""
        frames = (signal.shape[2] - N_FFT) // self.hop + 1
        span = N_FFT // NUM_SUMS
        reach = self.hop * (frames - 1) + span
        return [
            nn.functional.conv1d(signal[:, :, at : at + reach], self.basis[:, :, at : at + span], stride=self.hop)
            for at in range(0, N_FFT, span)
        ]

    def _by_products(self, signal: Tensor) -> list[Tensor]:
        """Return the same as `_by_convolution`, by matrix products of frames that were cut out."""
        span = N_FFT // NUM_SUMS
        frames = signal[:, 0].unfold(1, N_FFT, self.hop)
        batch, count = frames.shape[:2]
        # [NUM_SUMS,B*frames,span] x [NUM_SUMS,span,514]
        rows = frames.reshape(batch * count, NUM_SUMS, span).transpose(0, 1)
        table = self.basis[:, 0].unflatten(1, (NUM_SUMS, span)).permute(1, 2, 0)
        sums = torch.matmul(rows, table)
        return [part.unflatten(0, (batch, count)).transpose(1, 2) for part in sums.unbind()]


@contextmanager
def whole_float32() -> Iterator[None]:
    """Matrix products of float32 on a GPU with all their bits, whatever the program has set."""
    matmul = torch.backends.cuda.matmul
    if matmul.fp32_precision != "tf32":
        yield
        return
    try:
        wanted = torch.get_float32_matmul_precision()
    except RuntimeError:
        # it was set by `fp32_precision` alone
        wanted = "highest"
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if wanted == "highest":
            matmul.fp32_precision = "tf32"
        else:
            torch.set_float32_matmul_precision(wanted)


def _dft(window: np.ndarray) -> np.ndarray:
    """Rows cos and sin of the windowed DFT, [514, 512] float64."""
    time = np.arange(N_FFT)
    frequency = np.arange(N_FFT // 2 + 1)[:, None]
    # the phase is reduced modulo N before the cosine: exact for large products
    angle = 2 * np.pi * ((frequency * time) % N_FFT) / N_FFT
    return np.concatenate([np.cos(angle), -np.sin(angle)]) * window


def _hann_basis() -> np.ndarray:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    return _dft(window)


def _density_basis(sample_rate: int) -> np.ndarray:
    """SciPy's defaults folded into the basis: Tukey 0.25, constant detrend, density, one-sided."""
    window = _tukey(0.25)
    basis = _dft(window)
    basis = basis - basis.mean(axis=1, keepdims=True)
    scale = np.full(N_FFT // 2 + 1, 2.0)
    scale[[0, -1]] = 1.0
    scale /= sample_rate * np.sum(window**2)
    return basis * np.sqrt(np.concatenate([scale, scale]))[:, None]


def _tukey(alpha: float) -> np.ndarray:
    """Return the periodic Tukey window of N_FFT samples."""
    position = np.arange(N_FFT) / N_FFT
    edge = np.minimum(position, 1 - position)
    rising = 0.5 - 0.5 * np.cos(2 * np.pi * edge / alpha)
    return np.where(edge < alpha / 2, rising, 1.0)
