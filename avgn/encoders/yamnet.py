"""YAMNet: the audio network of 521 AudioSet classes, and the log-mel front-end that it hears through.

MobileNet v1 over patches of 0.96 s (Plakal & Ellis; tensorflow/models, research/audioset/yamnet). Written from its
published parameters; its batch norms are part of the convolutions.

Legend: B batch, T samples, F frames of 10 ms.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avgn.frontend import whole_float32

RATE = 16_000
FRAME, HOP, N_FFT = 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0
LOG_OFFSET = 1e-3
# frames and samples of a patch
PATCH_FRAMES = 96
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP + FRAME
WIDTH = 1024
# frames that the network halves five times into one
COLUMN = 32
# what comes after the first convolution: stride, channels
LAYERS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)


class LogMel(nn.Module):
    """Turns a waveform [B,T] at 16 kHz into its log-mel spectrogram [B,1,64,F], always in float32.

    Periodic Hann windows of 25 ms every 10 ms, none of them padded; the magnitude of an FFT of 512; 64 triangles on
    HTK's mel scale from 125 to 7500 Hz; ln(mel + 0.001). F = (T - 400) // 160 + 1.
    """

    basis: Tensor
    bands: Tensor

    # what tells the front-ends apart
    kind = "log-mel"

    def __init__(self) -> None:
        super().__init__()
        bands = mel_bands()
        heard = np.flatnonzero(bands.any(axis=1))
        first, last = int(heard[0]), int(heard[-1]) + 1
        basis = _dft()[:, first:last].reshape(-1, 1, FRAME)
        self.register_buffer("basis", torch.from_numpy(basis).float(), persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands[first:last].T.copy()).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the spectrogram. Raises ValueError for a waveform that is not [B,T] or shorter than a window."""
        if waveform.dim() != 2 or waveform.shape[1] < FRAME:
            raise ValueError(f"waveform must be [B,T] of at least {FRAME} samples, got {tuple(waveform.shape)}")
        with torch.autocast(waveform.device.type, enabled=False), whole_float32():
            signal = waveform.to(self.basis.dtype)[:, None]
            real, imaginary = nn.functional.conv1d(signal, self.basis, stride=HOP).chunk(2, dim=1)
            # the derivative of a root is infinite at zero
            magnitude = torch.sqrt(real * real + imaginary * imaginary + 1e-20)
            return torch.log(torch.matmul(self.bands, magnitude) + LOG_OFFSET)[:, None]


class YAMNet(nn.Module):
    """Encodes log-mel spectrograms [B,1,64,F] as features [B,1024,2,F/32] from 0 up; 96 frames are one patch.

    The mean over a patch is what the published classifier takes. F must be a multiple of 32.
    """

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2)
        layers = []
        width = 32
        for stride, channels in LAYERS:
            layers.append(Separable(width, channels, stride))
            width = channels
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(nn.functional.relu(self.stem(nn.functional.pad(x, (0, 1, 0, 1)))))


class SpectrogramYAMNet(YAMNet):
    """Runs YAMNet over a spectrogram [B,1,64,F] of any length; frames beyond whole columns of 32 are left out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., : x.shape[3] // COLUMN * COLUMN])


class Separable(nn.Module):
    """Filters each channel and mixes the channels, both with ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        padding = 1 if stride == 1 else 0
        self.filter = nn.Conv2d(channels_in, channels_in, 3, stride=stride, padding=padding, groups=channels_in)
        self.mix = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            # as TensorFlow pads "same" where 2 divides the sides
            x = nn.functional.pad(x, (0, 1, 0, 1))
        return nn.functional.relu(self.mix(nn.functional.relu(self.filter(x))))


def cut_patches(spectrogram: Tensor, hop: int) -> Tensor:
    """Cut a spectrogram [B,1,64,F] into whole patches `hop` frames apart: [B,N,1,64,96], N = (F - 96) // hop + 1.

    Raises ValueError for less than a patch.
    """
    frames = spectrogram.shape[3]
    if frames < PATCH_FRAMES:
        raise ValueError(f"a patch is {PATCH_FRAMES} frames ({PATCH_SAMPLES} samples), got {frames}: take more sound")
    starts = range(0, frames - PATCH_FRAMES + 1, hop)
    return torch.stack([spectrogram[..., at : at + PATCH_FRAMES] for at in starts], dim=1)


def rename(numbers: dict[str, NDArray[np.float32]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Split the published network's numbers, by its layers' names: (this module's state, rows [521,1024], biases).

    `numbers` holds "layer1/fused" and "layerN/depthwise_conv" and "layerN/pointwise_conv" (N = 2 .. 14) with "/weight"
    and "/bias", and "classifier/weight" and "classifier/bias". Kernels are transposed: here time runs along rows.
    Raises KeyError for one that is missing.
    """

    def pair(name: str) -> tuple[Tensor, Tensor]:
        weight = torch.from_numpy(numbers[f"{name}/weight"].copy())
        return weight.transpose(-1, -2).contiguous() if weight.dim() == 4 else weight, torch.from_numpy(
            numbers[f"{name}/bias"].copy()
        )

    state: dict[str, Tensor] = {}
    state["stem.weight"], state["stem.bias"] = pair("layer1/fused")
    for index in range(len(LAYERS)):
        for part, published in (("filter", "depthwise_conv"), ("mix", "pointwise_conv")):
            weight, bias = pair(f"layer{index + 2}/{published}")
            state[f"layers.{index}.{part}.weight"], state[f"layers.{index}.{part}.bias"] = weight, bias
    rows, biases = pair("classifier")
    return state, rows, biases


def mel_bands() -> NDArray[np.float64]:
    """Compute the weights [257,64] of the spectrum's bins in the bands: triangles on the mel scale, nothing at 0 Hz."""
    edges = np.linspace(_mel(np.array(LOWEST)), _mel(np.array(HIGHEST)), BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    bins = _mel(np.linspace(0, RATE / 2, N_FFT // 2 + 1))[:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    bands = np.maximum(0.0, np.minimum(rising, falling))
    bands[0] = 0.0
    return bands


def _mel(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(frequency / 700.0)


def _dft() -> NDArray[np.float64]:
    """Compute cos and sin of the windowed transform, [2, 257, 400]."""
    time, frequency = np.arange(FRAME), np.arange(N_FFT // 2 + 1)[:, None]
    # the phase is reduced modulo N before the cosine: exact for large products
    angle = 2 * np.pi * ((frequency * time) % N_FFT) / N_FFT
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / FRAME)
    return np.stack([np.cos(angle) * window, np.sin(angle) * window])
