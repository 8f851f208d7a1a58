"""The front-end for inference alone: with a quarter of its multiply-adds (CPUs), or as one product of frames (GPUs).

cos(2 pi k n / N) is even around n = N / 2 and, up to the sign (-1)^k, around N / 4; the sine is odd. So samples are
added up in pairs, twice, before they meet matrices of a quarter of the size, for the even and for the odd k. That is
some seventy small operators, and a GPU takes microseconds for each of them, however little it computes.

Legend: B batch, T samples, F frames, N = 512 samples of a frame, q = N / 4.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from avgn.frontend import LOG_OFFSET, N_FFT, Spectrogram

HALF, QUARTER = N_FFT // 2, N_FFT // 4


class Table(nn.Module):
    """table [k,n] times x [B,n,F], as two sums: a float32 accumulator loses less over short ones."""

    first: Tensor
    second: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.split = table.shape[1] // 2
        self.register_buffer("first", table[:, : self.split].clone(), persistent=False)
        self.register_buffer("second", table[:, self.split :].clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.first, x[:, : self.split]) + torch.matmul(self.second, x[:, self.split :])


class FoldedSpectrogram(nn.Module):
    """What `Spectrogram` of kind "paper" gives, to rounding: waveform [B,T] -> [B,1,257,F]."""

    window: Tensor

    def __init__(self, spectrogram: Spectrogram) -> None:
        super().__init__()
        _check(spectrogram)
        self.hop, self.mean, self.std = spectrogram.hop, spectrogram.mean, spectrogram.std
        kind = spectrogram.basis.dtype
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
        self.register_buffer("window", torch.from_numpy(window).to(kind)[:, None], persistent=False)
        even, odd = 2 * np.arange(QUARTER + 1), 2 * np.arange(QUARTER) + 1
        inner = np.arange(1, QUARTER)
        self.cos_even = _table(np.cos(_angles(even, np.arange(QUARTER + 1))), kind)
        self.cos_odd = _table(np.cos(_angles(odd, np.arange(QUARTER))), kind)
        self.sin_even = _table(np.sin(_angles(even, inner)), kind)
        self.sin_odd = _table(np.sin(_angles(odd, np.append(inner, QUARTER))), kind)

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform [B,T] -> [B,1,257,F]."""
        frames = cut(waveform.to(self.window.dtype), self.hop) * self.window
        # frames begin with a zero of the window; sample n meets N - n
        rising, falling = frames[:, 1:HALF], frames[:, HALF + 1 :].flip(1)
        middle = frames[:, HALF : HALF + 1]
        even, odd = rising + falling, rising - falling
        # rows n = 1 .. q - 1 meet N / 2 - n; row q stands alone
        (low, centre, high), (low_odd, centre_odd, high_odd) = _around(even), _around(odd)
        real_even = self.cos_even(torch.cat([middle, low + high, centre], dim=1))
        real_odd = self.cos_odd(torch.cat([-middle, low - high], dim=1))
        imaginary_even = self.sin_even(low_odd - high_odd)
        imaginary_odd = self.sin_odd(torch.cat([low_odd + high_odd, centre_odd], dim=1))
        of_even = real_even * real_even + imaginary_even * imaginary_even
        of_odd = real_odd * real_odd + imaginary_odd * imaginary_odd
        mixed = torch.stack([of_even[:, :QUARTER], of_odd], dim=2).flatten(1, 2)
        power = torch.cat([mixed, of_even[:, QUARTER:]], dim=1)
        return ((torch.log(power + LOG_OFFSET) - self.mean) / self.std)[:, None]


class FramedSpectrogram(nn.Module):
    """What `Spectrogram` of kind "paper" gives, to rounding, as one product: waveform [B,T] -> [B,1,257,F]."""

    table: Tensor

    def __init__(self, spectrogram: Spectrogram) -> None:
        super().__init__()
        _check(spectrogram)
        self.hop, self.mean, self.std = spectrogram.hop, spectrogram.mean, spectrogram.std
        # the model adds up short sums, for less rounding; kept apart they would be more bytes than all the rest moves,
        # and one sum is no further from float64 than the folded form is
        self.register_buffer("table", spectrogram.basis[:, 0].clone(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform [B,T] -> [B,1,257,F]."""
        frames = cut(waveform.to(self.table.dtype), self.hop)
        real, imaginary = torch.matmul(self.table, frames).chunk(2, dim=1)
        power = real * real + imaginary * imaginary
        return ((torch.log(power + LOG_OFFSET) - self.mean) / self.std)[:, None]


def cut(waveform: Tensor, hop: int) -> Tensor:
    """Cut a sound [B,T], padded at both ends, into overlapping frames [B,N,F], from rows of one hop each."""
    signal = nn.functional.pad(waveform[:, None], (HALF, HALF), mode="reflect")[:, 0]
    count = waveform.shape[1] // hop
    whole, rest = divmod(N_FFT, hop)
    rows = signal[:, : hop * (count + whole)].unflatten(1, (count + whole, hop)).transpose(1, 2)
    parts = [rows[:, :, at : at + count] for at in range(whole)]
    return torch.cat([*parts, rows[:, :rest, whole:]], dim=1)


def _check(spectrogram: Spectrogram) -> None:
    if spectrogram.kind != "paper":
        raise ValueError(f"front-end {spectrogram.kind!r} is computed as it is: only the paper's has another form")


def _table(values: np.ndarray, kind: torch.dtype) -> Table:
    return Table(torch.from_numpy(values).to(kind))


def _angles(frequency: np.ndarray, time: np.ndarray) -> np.ndarray:
    # the phase is reduced modulo N before the cosine: exact for large products
    return 2 * np.pi * ((frequency[:, None] * time) % N_FFT) / N_FFT


def _around(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows 1 .. N / 2 - 1 as those before q, row q, and those after it in reverse."""
    return x[:, : QUARTER - 1], x[:, QUARTER - 1 : QUARTER], x[:, QUARTER:].flip(1)
