"""Draws a sound: the log-spectrogram that the audio front-end computes, in numpy.

Legend: T samples, F frequencies, H x W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.image import import_cv2

# repeats the constants of avgn.frontend, which needs torch
RATE = 22_050
N_FFT = 512
HOP_SAMPLES = 220
LOG_OFFSET = 1e-7
# what is this far below the loudest (in ln of power; 80 dB) is black
RANGE_NATS = 18.4
MAX_SECONDS = 20


def log_spectrogram(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute ln(power + 1e-7) [F, columns] of a waveform [T]: periodic Hann window of 512, hop 220, centred,
    reflected."""
    reflected = np.pad(waveform, N_FFT // 2, mode="reflect" if len(waveform) > N_FFT // 2 else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(reflected, N_FFT)[::HOP_SAMPLES][
        : max(1, len(waveform) // HOP_SAMPLES)
    ]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return np.asarray(np.log(power + LOG_OFFSET).T, dtype=np.float32)


def draw_spectrogram(waveform: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a waveform [T] at 22 050 Hz as RGB [*size, 3]: low frequencies at the bottom, the middle of a long sound."""
    cv2 = import_cv2()
    spare = max(0, len(waveform) - MAX_SECONDS * RATE)
    values = log_spectrogram(waveform[spare // 2 : len(waveform) - (spare - spare // 2)])
    top = float(values.max())
    # digital silence has no loudest frequency
    share = np.clip((values - top) / RANGE_NATS + 1, 0, 1) if top > np.log(2 * LOG_OFFSET) else np.zeros_like(values)
    gray = cv2.resize((255 * share[::-1]).astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO)[..., ::-1])
