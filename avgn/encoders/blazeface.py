"""BlazeFace (short range): where faces are, for pictures of any size divisible by 16.

Bazarevsky et al. 2019, as MediaPipe ships it; written from the shapes of its published parameters. Only the scores of
its anchors are used here, not their boxes.

Legend: B batch, H x W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avgn.maxima import largest

# channels after each block; where they halve the picture
BLOCKS = (24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88, 96, 96, 96, 96, 96)
HALVING = (2, 5, 11)
# the block whose cells see 8 pixels; the last one's see 16
FINE_BLOCK = 10
FINE_ANCHORS, COARSE_ANCHORS = 2, 6
# the published range of scores is cut here
LIMIT = 100.0


class BlazeBlock(nn.Module):
    """Filters each channel, mixes the channels, and adds the input, filled up with channels of zeros."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, channels_out - channels_in
        padding = 1 if stride == 1 else 0
        self.filter = nn.Conv2d(channels_in, channels_in, 3, stride=stride, padding=padding, groups=channels_in)
        self.mix = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        straight = x
        if self.stride == 2:
            straight = nn.functional.max_pool2d(x, 2)
            # as TensorFlow pads "same" where 2 divides the sides
            x = nn.functional.pad(x, (0, 1, 0, 1))
        if self.new:
            straight = nn.functional.pad(straight, (0, 0, 0, 0, 0, self.new))
        return nn.functional.relu(straight + self.mix(self.filter(x)))


class BlazeFace(nn.Module):
    """Scores faces: pictures [B,3,H,W] in -1..1 -> log-odds at 8 pixels [B,1,H/8,W/8] and at 16 [B,1,H/16,W/16].

    Each is the largest of a cell's anchors. On a picture of 128 pixels, the first finds faces of about 10 to 30 % of
    its side, the second larger ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, BLOCKS[0], 5, stride=2)
        widths = (BLOCKS[0], *BLOCKS)
        self.blocks = nn.ModuleList(
            BlazeBlock(widths[index], widths[index + 1], 2 if index in HALVING else 1) for index in range(len(BLOCKS))
        )
        self.fine = nn.Conv2d(BLOCKS[FINE_BLOCK], FINE_ANCHORS, 1)
        self.coarse = nn.Conv2d(BLOCKS[-1], COARSE_ANCHORS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.relu(self.stem(nn.functional.pad(x, (1, 2, 1, 2))))
        fine = x
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == FINE_BLOCK:
                fine = x
        scores = largest(self.fine(fine), 1, keepdim=True), largest(self.coarse(x), 1, keepdim=True)
        return scores[0].clamp(-LIMIT, LIMIT), scores[1].clamp(-LIMIT, LIMIT)


def rename(numbers: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Return the published network's numbers, with kernels [out,rows,columns,in], as this module's state.

    Raises KeyError for one that is missing.
    """
    state: dict[str, Tensor] = {}

    def take(name: str, published: str) -> None:
        kernel = torch.from_numpy(numbers[f"{published}/Kernel"].copy())
        # [1,rows,columns,channels] or [out,rows,columns,in]
        order = (3, 0, 1, 2) if published.startswith("depthwise") else (0, 3, 1, 2)
        state[f"{name}.weight"] = kernel.permute(*order).contiguous()
        state[f"{name}.bias"] = torch.from_numpy(numbers[f"{published}/Bias"].copy())

    take("stem", "conv2d")
    for index in range(len(BLOCKS)):
        take(f"blocks.{index}.filter", f"depthwise_conv2d{f'_{index}' if index else ''}")
        take(f"blocks.{index}.mix", f"conv2d_{index + 1}")
    take("fine", "classificator_8")
    take("coarse", "classificator_16")
    return state
