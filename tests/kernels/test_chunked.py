"""The memory-lean form of max-pooled cosine against the reference, and its memory."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from avgn.kernels import max_pooled_cosine
from benchmarks.kernels.measure import measure_all

chunked = importlib.import_module("avgn.kernels.max_pooled_cosine.chunked")
public = importlib.import_module("avgn.kernels.max_pooled_cosine.public")
reference = importlib.import_module("avgn.kernels.max_pooled_cosine.reference")


def tensors(gates: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """3 sounds of 2 sources, 5 images of 7 cells; `gates` classes, a gate for each source (0), or none (-1)."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = [rand(3, 2, 8), rand(5, 7, 8)]
    options = {"audio_mask": torch.tensor([[True, True], [True, False], [True, True]])}
    if gates >= 0:
        inputs.append(rand(5, gates or 2, 8))
    if gates > 0:
        options["gate_index"] = torch.randint(gates, (3, 2), generator=generator)
    return inputs, options


@pytest.mark.parametrize("elements", [1, 120, 1 << 20], ids=["one image", "some", "all"])
@pytest.mark.parametrize("gates", [-1, 0, 4])
def test_it_equals_the_reference(gates: int, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", elements)
    inputs, options = tensors(gates)
    grad = torch.randn(3, 5, 2, dtype=torch.float64)
    results: list[Any] = []
    for function in (chunked.max_pooled_cosine, reference.max_pooled_cosine):
        similarity, argmax = function(*inputs, **options)
        kept = similarity.masked_fill(similarity.isinf(), 0.0)
        results.append((similarity, argmax, *torch.autograd.grad((kept * grad).sum(), inputs)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-13)


def test_gradients_may_come_in_any_layout() -> None:
    inputs, _ = tensors(0)
    target = torch.arange(5)[:3]
    results = []
    for function in (chunked.max_pooled_cosine, reference.max_pooled_cosine):
        logits = function(*inputs)[0].transpose(1, 2).reshape(-1, 5)
        loss = torch.nn.functional.cross_entropy(logits, target.repeat_interleave(2))
        results.append(torch.autograd.grad(loss, inputs))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-7, 0.9e-6, 1.1e-6, 1e-3])
@pytest.mark.parametrize("gated", [False, True])
def test_gradients_of_cells_next_to_nothing_are_the_references(gated: bool, length: float) -> None:
    """Below the root of eps the length is held: what pulls along the cell is gone there, as in the reference."""
    inputs, _ = tensors(0 if gated else -1)
    with torch.no_grad():
        inputs[1].mul_(length)
        # in every image a single cell, so that it wins
        visual = inputs[1][:, :1].clone()
    inputs[1] = visual.requires_grad_()
    grad = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for function in (chunked.max_pooled_cosine, reference.max_pooled_cosine):
        similarity, _ = function(*inputs)
        # a gate whose cell is shorter than that has no length to be spared: its gradient is left out
        results.append((similarity, *torch.autograd.grad((similarity * grad).sum(), inputs[:2])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-13)


def test_its_gradient_is_that_of_its_values() -> None:
    inputs, options = tensors(4)
    del options["audio_mask"]
    assert torch.autograd.gradcheck(lambda *t: chunked.max_pooled_cosine(*t, **options)[0], inputs)


def test_large_calls_on_the_cpu_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVGN_KERNELS", raising=False)
    monkeypatch.setattr(public, "LARGE", 100)
    inputs, _ = tensors(0)
    assert "Chunked" in str(max_pooled_cosine(*inputs)[0].grad_fn)
    monkeypatch.setenv("AVGN_KERNELS", "reference")
    assert "Chunked" not in str(max_pooled_cosine(*inputs)[0].grad_fn)


@pytest.mark.soak
def test_memory_and_time_at_a_large_batch() -> None:
    found = measure_all()
    assert found["naive_over_chunked"]["peak_bytes"] >= 8
    assert found["einsum_over_chunked"]["peak_bytes"] >= 5
    assert min(found[f"{form}_over_chunked"]["p50"] for form in ("naive", "einsum")) >= 1


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return out


@pytest.mark.parametrize("gates", [-1, 0, 4])
def test_nothing_grows_with_pairs_times_cells(gates: int) -> None:
    """Forward and backward make no tensor larger than the inputs, the similarities [B,M,N] and a chunk."""
    batch, sources, cells, width = 64, 2, 196, 8
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, sources, width), (batch, cells, width), (batch, gates or sources, width)]
    inputs = [torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes[: 2 + (gates >= 0)]]
    index = {"gate_index": torch.randint(gates, (batch, sources), generator=generator)} if gates > 0 else {}
    found = {}
    for form in (chunked, reference):
        with Largest() as largest:
            similarity, _ = form.max_pooled_cosine(*inputs, **index)
            logits = similarity.transpose(1, 2).reshape(-1, batch)
            target = torch.arange(batch).repeat_interleave(sources)
            torch.autograd.grad(torch.nn.functional.cross_entropy(logits, target), inputs)
        found[form] = largest.elements
    bound = max(batch * cells * width, batch * sources * batch, chunked.CHUNK_ELEMENTS)
    assert found[chunked] <= bound < found[reference]
