"""Grouping attention in Triton's interpreter against float64; `test_fused.py` runs this file."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import grouping_attention
from avgn.kernels.grouping_attention import op, plan
from tests.kernels.interpreted.traffic import count_bytes

reference = importlib.import_module("avgn.kernels.grouping_attention.reference")
assert os.environ.get("TRITON_INTERPRET") == "1"
NAMES = ("out", "grad query", "grad key", "grad value")
WHOLE = [(2, 49, 37, 96), (1, 49, 221, 40), (2, 1, 1, 3), (1, 30, 1, 16), (1, 20, 4, 520)]
TILED = [(2, 49, 37, 96), (1, 196, 40, 24), (1, 20, 300, 24), (2, 1, 1, 3), (1, 20, 9, 300)]

# as float32, as two float16 and as two bfloat16 it is NaN, as an index far outside
NOT_WRITTEN = -0xF0010


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels don't write is NaN."""
    empty = Tensor.new_empty

    def poison(self: Tensor, *size: Any, **options: Any) -> Tensor:
        made = empty(self, *size, **options)
        return made.fill_(float("nan") if made.is_floating_point() else NOT_WRITTEN)

    monkeypatch.setattr(Tensor, "new_empty", poison)


def inputs(batch: int, cells: int, classes: int, width: int, spread: float = 1.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value, grad = (
        torch.randn(batch, count, width, generator=generator) for count in (cells, classes, cells, classes)
    )
    return [query * spread, key, value, grad]


def gradients(function: Any, tensors: list[Tensor], dtype: torch.dtype, **options: Any) -> list[Tensor]:
    query, key, value = (tensor.to(dtype).detach().clone().requires_grad_() for tensor in tensors[:3])
    out = function(query, key, value, scale=query.shape[2] ** -0.5, **options)
    out.backward(tensors[3].to(dtype))
    assert query.grad is not None and key.grad is not None and value.grad is not None
    return [out.detach(), query.grad, key.grad, value.grad]


def naive(query: Tensor, key: Tensor, value: Tensor, *, scale: float, eps: float = 0.0) -> Tensor:
    """The equations as a user would write them, in the inputs' own dtype."""
    weights = torch.softmax(torch.matmul(query, key.transpose(1, 2)) * scale, dim=2)
    weights = weights / (weights.sum(dim=1, keepdim=True) + eps)
    return torch.matmul(weights.transpose(1, 2), value)


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth.double()).abs().max() / truth.double().abs().max().clamp_min(1e-30))


@pytest.mark.parametrize("options", [{}, {"eps": 1.0}, {"hard": True}], ids=["exact", "eps", "hard"])
@pytest.mark.parametrize(
    ("shape", "tiled"), [*((shape, False) for shape in WHOLE), *((shape, True) for shape in TILED)]
)
def test_float32(shape: tuple[int, ...], options: dict[str, Any], tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiled:
        monkeypatch.setattr(plan, "WHOLE_ELEMENTS", 0)
    tensors = inputs(*shape)
    found = gradients(grouping_attention, tensors, torch.float32, **options)
    truth = gradients(reference.grouping_attention, tensors, torch.float64, **options)
    for name, one, other in zip(NAMES, found, truth, strict=True):
        assert torch.isfinite(one).all(), name
        if other.abs().max() < 1e-12:  # one class: the assignment is constant
            assert one.abs().max() < 1e-6, name
        else:
            assert error(one, other) <= 1e-5, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiled"])
def test_half_precision_errs_no_more_than_twice_as_much_as_torch(
    dtype: torch.dtype, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr(plan, "WHOLE_ELEMENTS", 0)
    tensors = [tensor.to(dtype).float() for tensor in inputs(2, 49, 37, 96)]
    found = gradients(grouping_attention, tensors, dtype)
    plain = gradients(naive, tensors, dtype)
    truth = gradients(reference.grouping_attention, tensors, torch.float64)
    for name, one, other, right in zip(NAMES, found, plain, truth, strict=True):
        assert one.dtype == dtype
        assert error(one, right) <= 2 * error(other, right), name


@pytest.mark.parametrize("options", [{}, {"hard": True}, {"eps": 1.0}], ids=str)
def test_large_logits_in_half_precision_stay_finite(options: dict[str, Any]) -> None:
    tensors = inputs(1, 49, 37, 96, spread=50.0)
    for one in gradients(grouping_attention, tensors, torch.float16, **options):
        assert torch.isfinite(one).all()


def test_a_class_without_cells_gets_zero() -> None:
    query, key, value, grad = inputs(1, 5, 8, 16)
    out, *slopes = gradients(grouping_attention, [query, key, value, grad], torch.float32, hard=True)
    winners = torch.matmul(query, key.transpose(1, 2)).argmax(2).unique()
    lost = [index for index in range(8) if index not in winners]
    assert lost and (out[0, lost] == 0).all()
    assert all(torch.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiled"])
def test_ties_go_to_the_lowest_class(tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiled:
        monkeypatch.setattr(plan, "WHOLE_ELEMENTS", 0)
    query, _, value, _ = inputs(1, 20, 1, 16)
    key = torch.zeros(1, 150, 16)
    found = grouping_attention(query, key, value, scale=1.0, hard=True)
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found[0, 0], value[0].mean(0))
    assert (found[0, 1:] == 0).all()


def test_inputs_need_not_be_contiguous() -> None:
    query, key, value, grad = inputs(3, 20, 6, 16)
    odd = [query.transpose(1, 2).contiguous().transpose(1, 2), key.repeat(2, 1, 1)[::2], value.flip(0).flip(0), grad]
    odd[1].copy_(key)
    wide = torch.zeros(3, 40, 16)
    wide[:, ::2] = value
    odd[2] = wide[:, ::2]
    for left, right in zip(
        (grouping_attention(*odd[:3], scale=1.0),), (grouping_attention(query, key, value, scale=1.0),), strict=True
    ):
        torch.testing.assert_close(left, right)


def test_offsets_past_32_bits() -> None:
    query, key, value, _ = inputs(2, 3, 2, 16)
    far = (1 << 31) + 64
    # never touched memory costs nothing: only the pages of a few rows are there
    store = torch.empty(2 * far, dtype=torch.float32)
    sample_far = store.as_strided((2, 3, 16), (far, 16, 1))
    row_far = store.as_strided((1, 3, 16), (0, far // 2, 1))
    sample_far.copy_(query)
    truth = reference.grouping_attention(query, key, value, scale=1.0)
    torch.testing.assert_close(grouping_attention(sample_far, key, value, scale=1.0), truth)
    row_far.copy_(query[:1])
    torch.testing.assert_close(grouping_attention(row_far, key[:1], value[:1], scale=1.0), truth[:1])


def test_nothing_in_gives_nothing_out() -> None:
    empty = torch.zeros(0, 5, 8, requires_grad=True)
    out = grouping_attention(empty, torch.zeros(0, 3, 8), empty, scale=1.0)
    assert isinstance(out, Tensor) and out.shape == (0, 3, 8)
    out.sum().backward()


def test_the_same_call_gives_the_same_bits() -> None:
    tensors = inputs(2, 70, 150, 64)
    for one, other in zip(
        gradients(grouping_attention, tensors, torch.float32),
        gradients(grouping_attention, tensors, torch.float32),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("cells", "classes", "limit"),
    [(49, 37, 1.1), (256, 64, 1.1), (64, 256, 1.1), (784, 37, 4.2), (196, 221, 4.2), (784, 221, 4.2)],
)
def test_bytes_moved(cells: int, classes: int, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    width = 512
    query, key, value, _ = inputs(1, cells, classes, width)
    halves = [tensor.half() for tensor in (query, key, value)]
    moved = count_bytes(monkeypatch, lambda: grouping_attention(*halves, scale=width**-0.5))
    least = 2 * width * (2 * cells + 2 * classes)
    print(f"P={cells} C={classes}: {moved / least:.2f} of the least")
    assert least <= moved <= limit * least


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q, k[:1], v), "must agree in batch and width"),
        (lambda q, k, v: (q, k[:, :, :4], v), "must agree in batch and width"),
        (lambda q, k, v: (q.half(), k, v.half()), "inputs of one dtype"),
    ],
)
def test_bad_input(change: Any, message: str) -> None:
    query, key, value, _ = inputs(2, 5, 3, 8)
    with pytest.raises(ValueError, match=message):
        grouping_attention(*change(query, key, value), scale=1.0)


def test_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_KERNELS", "triton")
    with pytest.raises(ValueError, match="widths up to 1024, got 1100"):
        grouping_attention(torch.zeros(1, 2, 1100), torch.zeros(1, 2, 1100), torch.zeros(1, 2, 1100), scale=1.0)


def test_the_operator_is_well_formed() -> None:
    query, key, value, _ = inputs(2, 9, 5, 16)
    arguments = tuple(tensor.requires_grad_() for tensor in (query, key, value))
    torch.library.opcheck(op.grouping_attention_op, (*arguments, 0.25, 0.0, False))


@pytest.mark.parametrize("cells", [9, 1200], ids=["whole", "in steps"])
@pytest.mark.parametrize("hard", [False, True])
def test_what_is_not_a_number_is_not_hidden(hard: bool, cells: int) -> None:
    for at in range(3):
        tensors = [torch.randn(2, count, 16) for count in (cells, 5, cells)]
        tensors[at][1, 1, 3] = float("nan")
        found = grouping_attention(*tensors, scale=0.3, hard=hard)
        truth = reference.grouping_attention(*tensors, scale=0.3, hard=hard)
        assert isinstance(found, Tensor) and isinstance(truth, Tensor)
        assert torch.equal(found.isnan(), truth.isnan()), at


def test_inputs_of_two_devices_are_refused() -> None:
    cells = torch.randn(2, 9, 16)
    with pytest.raises(ValueError, match="inputs on one device, got cpu, meta: move them"):
        grouping_attention(cells, torch.randn(2, 5, 16, device="meta"), cells, scale=0.3)
