"""Measures the kernels on a CUDA device: correctness first, then times against naive, compiled and einsum forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avgn.kernels.grouping_attention import reference as grouping_reference
from avgn.kernels.grouping_attention.op import grouping_attention_op
from avgn.kernels.max_pooled_cosine import reference as cosine_reference
from avgn.kernels.max_pooled_cosine.op import max_pooled_cosine_op
from benchmarks.kernels.measure import naive as naive_cosine

TOLERANCE = 2e-2


def measure_gpu(b: int = 128, n: int = 2, p: int = 49, c: int = 37, d: int = 512) -> list[dict[str, Any]]:
    """One row an operation, direction and form: p20, p50 and p80 milliseconds in fp16. Raises RuntimeError when a
    kernel's result is wrong.
    """
    query, key, value = (_random(b, count, d, seed=index) for index, count in enumerate((p, c, p)))
    audio, visual, gate = (_random(b, count, d, seed=index) for index, count in enumerate((n, p, n)))
    ids = torch.arange(n, device="cuda", dtype=torch.int32).expand(b, n)
    scale = d**-0.5

    def plain_grouping(*tensors: Tensor) -> Tensor:
        found = grouping_reference.grouping_attention(*tensors, scale=scale)
        assert isinstance(found, Tensor)
        return found

    def naive_grouping(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(q @ k.transpose(1, 2) * scale, dim=2)
        return (weights / weights.sum(dim=1, keepdim=True)).transpose(1, 2) @ v

    operations: dict[str, tuple[list[Tensor], dict[str, Callable[..., Tensor]]]] = {
        "grouping_attention": (
            [query, key, value],
            {
                "fused": lambda *t: grouping_attention_op(*t, scale, 0.0, False)[0],
                "naive": naive_grouping,
                "einsum": plain_grouping,
                "compiled": torch.compile(naive_grouping),
            },
        ),
        "max_pooled_cosine": (
            [audio, visual, gate],
            {
                "fused": lambda *t: max_pooled_cosine_op(*t, ids)[0],
                "naive": lambda *t: naive_cosine(*t)[0],
                "einsum": lambda *t: cosine_reference.max_pooled_cosine(*t)[0],
                "compiled": torch.compile(lambda *t: naive_cosine(*t)[0]),
            },
        ),
    }
    rows = []
    for operation, (inputs, forms) in operations.items():
        _check(operation, forms["fused"], forms["einsum"], inputs)
        for form, function in forms.items():
            for direction in ("forward", "forward+backward"):
                times = _time(function, inputs, direction == "forward+backward")
                rows.append({"operation": operation, "form": form, "direction": direction, **times})
    return rows


def _check(name: str, fused: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    truth = plain(*(tensor.double() for tensor in inputs))
    error = float((fused(*inputs).double() - truth).abs().max() / truth.abs().max())
    if not error <= TOLERANCE:
        raise RuntimeError(f"{name} is off by {error:.2e} of the largest value on this device: it is not timed")


def _time(function: Callable[..., Tensor], inputs: list[Tensor], backward: bool) -> dict[str, float]:
    from triton.testing import do_bench

    tensors = [tensor.detach().clone().requires_grad_(backward) for tensor in inputs]

    def step() -> None:
        out = function(*tensors)
        if backward:
            out.float().sum().backward()

    p20, p50, p80 = do_bench(step, quantiles=[0.2, 0.5, 0.8], grad_to_none=tensors)
    return {"p20 ms": p20, "p50 ms": p50, "p80 ms": p80}


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).half().cuda()
