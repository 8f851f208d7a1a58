"""Rounds weights to what float16 holds, so that graphs store them in half the bytes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from avgn.encoders.efficientnet_lite import ConvNorm


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round kernels and matrices to what float16 holds, so that a bundle stores them in half the bytes.

    Norms go into the kernels before them first, and stay behind as a bias.
    """
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(module.conv, module.norm)
            assert fused.bias is not None
            module.conv.weight.copy_(fused.weight)
            nn.init.ones_(module.norm.weight)
            module.norm.bias.copy_(fused.bias)
            assert module.norm.running_mean is not None and module.norm.running_var is not None
            module.norm.running_mean.zero_()
            module.norm.running_var.fill_(1 - module.norm.eps)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.copy_(module.weight.half().float())
