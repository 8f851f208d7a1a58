"""A half with example inputs, and the axes of these that stay open: what every exporter of PyTorch asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avgn.export.halves import AudioHalf, ImageHalf
from avgn.export.optimize import OptimizedModel, check_optimized
from avgn.runtime.contract import STRIDE

# what a graph may be asked for: batch, and rows and columns of cells
MOST_BATCH, MOST_CELLS = 4096, 64

Axes = tuple[dict[int, Any], ...]


def half_of(optimized: OptimizedModel, half: str, device: str = "cpu") -> tuple[nn.Module, tuple[Tensor, ...], Axes]:
    """Return the half "audio" or "image" of a model with example inputs on `device`, and the open axes of each
    input."""
    check_optimized(optimized)
    config = optimized.model.config
    batch = torch.export.Dim("batch", min=1, max=MOST_BATCH)
    if half == "audio":
        waveform = torch.zeros(2, config.patch_samples or config.window_samples, device=device)
        return AudioHalf(optimized).eval(), (waveform,), ({0: batch},)
    rows, columns = (torch.export.Dim(name, min=1, max=MOST_CELLS) for name in ("rows", "columns"))
    image = torch.zeros(2, *config.image_size, 3, dtype=torch.uint8, device=device)
    sources = torch.zeros(2, config.num_maps, config.source_dim, device=device)
    return (
        ImageHalf(optimized).eval(),
        (image, sources),
        ({0: batch, 1: STRIDE * rows, 2: STRIDE * columns}, {0: batch}),
    )
