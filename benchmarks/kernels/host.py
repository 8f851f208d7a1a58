"""Measures what a call of a fused operation costs the host: python -m benchmarks.kernels.host

Every kernel is replaced by one that does nothing, so that the rest of a call can be timed on any machine: dispatch, the
autograd function, allocations, plans, and the search for the compiled kernel. Triton's launch itself adds some 3 us.
"nothing" is an autograd function that returns what it was given: PyTorch's own part of each number.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from avgn.kernels import grouping_attention, launch, max_pooled_cosine, records


class Nothing:
    """Stands for a kernel and for what Triton compiles it to."""

    function = packed_metadata = None

    def __init__(self, kernel: Any) -> None:
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Nothing]:
        return lambda *_, **__: self

    def run(self, *_: Any) -> None:
        """Do nothing."""


class Given(torch.autograd.Function):
    """Returns its input, and its gradient for each of three inputs."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return tensors[0].view_as(tensors[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return ctx.saved_tensors  # type: ignore[no-any-return]


@contextmanager
def no_kernels() -> Iterator[None]:
    """Let calls on the CPU take the path of a CUDA device, with kernels that do nothing."""
    from avgn.kernels.grouping_attention import launches as grouping_launches
    from avgn.kernels.max_pooled_cosine import launches as cosine_launches

    kernels: dict[int, Nothing] = {}

    def stub(kernel: Any, programs: int, plan: dict[str, Any], **arguments: Any) -> None:
        known = kernels.get(id(kernel))
        if known is None:
            known = kernels[id(kernel)] = Nothing(kernel)
        launch.launch_built(known, programs, plan, arguments, 0)

    with (
        patch.dict(os.environ, {"TRITON_INTERPRET": "1"}),
        patch.object(grouping_launches, "launch", stub),
        patch.object(cosine_launches, "launch", stub),
        patch.object(torch._C, "_cuda_getCurrentRawStream", lambda _: 0, create=True),
        patch.object(torch.cuda, "current_device", lambda: 0),
        patch.dict(launch.built_kernels, clear=True),
        patch.dict(records.records, clear=True),
    ):
        yield


def measure_host(calls: int = 200) -> dict[str, float]:
    """Measure the median microseconds of a call, by operation, forward alone and with its backward."""
    query, key = torch.randn(4, 9, 16), torch.randn(4, 5, 16)
    ids = torch.randint(5, (4, 2), dtype=torch.int32)

    def cosine(audio: Tensor, visual: Tensor, gate: Tensor | None = None) -> Tensor:
        index = None if gate is None else ids
        return max_pooled_cosine(audio, visual, gate, gate_index=index)[0]

    def grouping(*tensors: Tensor) -> Tensor:
        found = grouping_attention(*tensors, scale=0.25)
        assert isinstance(found, Tensor)
        return found

    forms: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
        "nothing": (Given.apply, [query, key, query.clone()]),
        "grouping_attention": (grouping, [query, key, query.clone()]),
        "max_pooled_cosine": (cosine, [torch.randn(4, 2, 16), query]),
        "max_pooled_cosine, class gates": (cosine, [torch.randn(4, 2, 16), query, key]),
    }
    found = {}
    with no_kernels():
        for name, (function, inputs) in forms.items():
            tensors = [tensor.clone().requires_grad_() for tensor in inputs]
            slope = torch.ones_like(function(*tensors))
            found[name] = _median(lambda f=function, t=tensors: f(*t), calls)  # type: ignore[misc]
            found[f"{name}, with backward"] = _median(
                lambda f=function, t=tensors, s=slope: torch.autograd.grad(f(*t), t, s),  # type: ignore[misc]
                calls,
            )
    return found


def _median(call: Callable[[], Any], calls: int) -> float:
    for _ in range(10):
        call()
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - begin))
    return round(statistics.median(times), 1)


if __name__ == "__main__":
    print(json.dumps(measure_host(), indent=1))
