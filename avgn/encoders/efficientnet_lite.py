"""EfficientNet-Lite0 without pool and classifier, for pictures of any size divisible by 32.

The network of Tan & Le ("EfficientNet", ICML 2019) in the form that Google published for phones: ReLU6, no
squeeze-and-excitation, stem and head of fixed width. Written from its table of stages.

Legend: B batch, H x W pixels, h x w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# pixels enter as (x - mean) / std
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0
STEM, HEAD = 32, 1280
# the published norms' own
NORM_EPS = 1e-3
# blocks, kernel, stride, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class ConvNorm(nn.Module):
    """Convolves and normalises, padded as TensorFlow pads "same" for sides divisible by the stride.

    With a stride of 2 there is one row of padding more below and on the right than above and on the left.
    `unstrided` leaves out a stride and keeps the cells that were computed with it where they are.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        unstrided: bool = False,
    ) -> None:
        super().__init__()
        total = dilation * (kernel - 1) + 1 - stride
        before = (kernel - 2) // 2 if unstrided else total // 2
        after = total - before
        even = before == after
        self.padding = (0, 0, 0, 0) if even else (before, after, before, after)
        self.conv = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride=stride,
            padding=before if even else 0,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(channels_out, eps=NORM_EPS, momentum=0.01)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding):
            x = nn.functional.pad(x, self.padding)
        return self.norm(self.conv(x))


class Block(nn.Module):
    """An inverted residual: expands, filters each channel and projects; adds the input where the shapes allow it."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        expansion: int,
        *,
        stride: int,
        dilation: int,
        wide: bool,
    ) -> None:
        """`wide`: the stride of 2 is left out."""
        super().__init__()
        inner = channels_in * expansion
        self.expand = ConvNorm(channels_in, inner, 1) if expansion > 1 else None
        self.filter = ConvNorm(inner, inner, kernel, stride=stride, groups=inner, dilation=dilation, unstrided=wide)
        self.project = ConvNorm(inner, channels_out, 1)
        self.adds = stride == 1 and not wide and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else nn.functional.relu6(self.expand(x))
        out = self.project(nn.functional.relu6(self.filter(inner)))
        return x + out if self.adds else out


class EfficientNetLite0(nn.Module):
    """Encodes pictures [B,3,H,W], as (x - 127) / 128, as cells [B,1280,h,w] from 0 to 6.

    `stride` is 32, or 16: the last stride is left out and what follows is dilated, so that every second cell is a
    cell of stride 32.
    """

    # how far the middle of what a cell sees lies beyond the cell's own middle, in cells of stride 32: every stride
    # pads one side alone
    shift = 15.5 / 32
    out_channels = HEAD

    def __init__(self, stride: int = 32) -> None:
        super().__init__()
        if stride not in (16, 32):
            raise ValueError(f"stride must be 16 or 32, got {stride}: choose one of them")
        self.stride = stride
        self.stem = ConvNorm(3, STEM, 3, stride=2)
        blocks: list[Block] = []
        width, reached, dilation = STEM, 2, 1
        for count, kernel, step, expansion, channels in STAGES:
            for index in range(count):
                given = step if index == 0 else 1
                wide = given == 2 and reached == stride
                blocks.append(
                    Block(
                        width,
                        channels,
                        kernel,
                        expansion,
                        stride=1 if wide else given,
                        dilation=dilation,
                        wide=wide,
                    )
                )
                width = channels
                if wide:
                    dilation *= 2
                else:
                    reached *= given
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(width, HEAD, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode pictures. Raises ValueError for sides that 32 does not divide."""
        height, width = x.shape[-2:]
        if not torch.compiler.is_compiling() and (height % 32 or width % 32):
            raise ValueError(f"a picture's sides must be divisible by 32, got {tuple(x.shape[-2:])}: resize it")
        x = nn.functional.relu6(self.stem(x))
        return nn.functional.relu6(self.head(self.blocks(x)))


def rename(published: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Split a published state dict: (this module's, classifier rows [1000,1280], their biases [1000]).

    Raises KeyError where the classifier is missing; other names are passed on under names that no module has.
    """
    parts = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
    }
    of_block = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "filter.conv",
        "_bn1": "filter.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    published = dict(published)
    rows, biases = published.pop("_fc.weight"), published.pop("_fc.bias")
    state = {}
    for name, value in published.items():
        *path, part, leaf = name.split(".")
        if path[:1] == ["_blocks"]:
            state[f"blocks.{path[1]}.{of_block.get(part, part)}.{leaf}"] = value
        else:
            state[f"{parts.get(part, part)}.{leaf}"] = value
    return state, rows, biases
