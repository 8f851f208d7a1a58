"""The fused kernels on a CUDA device against float64: `make gpu` runs this for whoever has one."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import grouping_attention, max_pooled_cosine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def compare(function: Any, plain: Any, inputs: list[Tensor], dtype: torch.dtype) -> None:
    found: list[Any] = []
    truth: list[Any] = []
    for call, kind, results in ((function, dtype, found), (plain, torch.float64, truth)):
        tensors = [tensor.to("cuda", dtype).to(kind).detach().requires_grad_() for tensor in inputs]
        out = call(*tensors)
        generator = torch.Generator("cuda").manual_seed(7)
        grad = torch.randn(out.shape, generator=generator, device="cuda")
        out.backward(grad.to(out.dtype))
        results += [out.detach(), *(tensor.grad for tensor in tensors)]
    for one, other in zip(found, truth, strict=True):
        assert torch.isfinite(one).all()
        assert (one.double() - other).abs().max() <= LIMITS[dtype] * other.abs().max()


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("options", [{}, {"eps": 1.0}, {"hard": True}], ids=str)
@pytest.mark.parametrize("shape", [(8, 49, 37, 512), (2, 196, 221, 512), (2, 784, 37, 96), (3, 7, 5, 1024)], ids=str)
def test_grouping_attention(shape: tuple[int, ...], options: dict[str, Any], dtype: torch.dtype) -> None:
    reference = importlib.import_module("avgn.kernels.grouping_attention.reference")
    batch, cells, classes, width = shape
    inputs = [torch.randn(batch, count, width) for count in (cells, classes, cells)]
    settings = {"scale": width**-0.5, **options}
    compare(
        lambda *t: grouping_attention(*t, **settings),
        lambda *t: reference.grouping_attention(*t, **settings),
        inputs,
        dtype,
    )


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("classes", [-1, 0, 37])
@pytest.mark.parametrize("shape", [(16, 2, 16, 49, 512), (5, 3, 7, 196, 96)], ids=str)
def test_max_pooled_cosine(shape: tuple[int, ...], classes: int, dtype: torch.dtype) -> None:
    reference = importlib.import_module("avgn.kernels.max_pooled_cosine.reference")
    sounds, sources, images, cells, width = shape
    inputs = [torch.randn(sounds, sources, width), torch.randn(images, cells, width)]
    options: dict[str, Tensor] = {}
    if classes >= 0:
        inputs.append(torch.randn(images, classes or sources, width))
    if classes > 0:
        options["gate_index"] = torch.randint(classes, (sounds, sources), device="cuda")
    compare(
        lambda *t: max_pooled_cosine(*t, **options)[0],
        lambda *t: reference.max_pooled_cosine(*t, **options)[0],
        inputs,
        dtype,
    )
