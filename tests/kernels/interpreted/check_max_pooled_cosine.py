"""Max-pooled cosine similarity in Triton's interpreter against float64; `test_fused.py` runs this file."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import max_pooled_cosine
from avgn.kernels.max_pooled_cosine import op
from avgn.kernels.max_pooled_cosine.plan import plan_order
from tests.kernels.interpreted.traffic import count_bytes

reference = importlib.import_module("avgn.kernels.max_pooled_cosine.reference")
assert os.environ.get("TRITON_INTERPRET") == "1"

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


@dataclass(frozen=True)
class Case:
    """B sounds of N sources, M images of P cells, width D; C classes, or a gate for each source (0), or none (-1)."""

    b: int
    n: int
    m: int
    p: int
    d: int
    c: int

    def tensors(self, seed: int = 0) -> tuple[list[Tensor], dict[str, Tensor], Tensor]:
        """The differentiable inputs, the options, and a gradient."""
        generator = torch.Generator().manual_seed(seed)
        audio = torch.randn(self.b, self.n, self.d, generator=generator)
        visual = torch.randn(self.m, self.p, self.d, generator=generator)
        inputs = [audio, visual]
        options = {"audio_mask": torch.rand(self.b, self.n, generator=generator) > 0.2}
        if self.c >= 0:
            inputs.append(torch.randn(self.m, self.c or self.n, self.d, generator=generator))
        if self.c > 0:
            options["gate_index"] = torch.randint(self.c, (self.b, self.n), generator=generator)
        return inputs, options, torch.randn(self.b, self.m, self.n, generator=generator)


CASES = [
    Case(3, 1, 2, 49, 96, -1),
    Case(3, 2, 4, 49, 96, 0),
    Case(2, 3, 2, 49, 160, 37),
    Case(2, 2, 1, 70, 40, 221),
    Case(2, 1, 2, 5, 520, 2),
    Case(2, 2, 2, 196, 40, -1),
    Case(40, 2, 2, 5, 16, 0),
    Case(4, 1, 2, 1, 3, 1),
]


def gradients(
    function: Any, inputs: list[Tensor], options: dict[str, Tensor], grad: Tensor, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """argmax; similarity (zero where masked) and the inputs' gradients."""
    tensors = [tensor.to(dtype).detach().clone().requires_grad_() for tensor in inputs]
    similarity, argmax = function(*tensors, **options)
    kept = similarity.masked_fill(similarity == float("-inf"), 0.0)
    (kept * grad.to(kept.dtype)).sum().backward()
    slopes = [tensor.grad for tensor in tensors]
    assert all(slope is not None for slope in slopes)
    return argmax, [kept.detach(), *(slope for slope in slopes if slope is not None)]


def naive(audio: Tensor, visual: Tensor, gate: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    """The equation as a user would write it, in the inputs' own dtype: it stores [M,N,P,D]."""
    modulated = torch.nn.functional.normalize(visual[:, None] * gate[:, :, None], dim=3)
    sound = torch.nn.functional.normalize(audio, dim=2)
    best = torch.einsum("bnd,mnpd->bmnp", sound, modulated).max(dim=3)
    return best.values, best.indices


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth.double()).abs().max() / truth.double().abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case: Case) -> None:
    inputs, options, grad = case.tensors()
    argmax, found = gradients(max_pooled_cosine, inputs, options, grad, torch.float32)
    right, truth = gradients(reference.max_pooled_cosine, inputs, options, grad, torch.float64)
    assert torch.equal(argmax, right)
    for one, other in zip(found, truth, strict=True):
        assert torch.isfinite(one).all()
        assert error(one, other) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_errs_no_more_than_twice_as_much_as_torch(dtype: torch.dtype) -> None:
    inputs, _, grad = Case(3, 2, 4, 49, 96, 0).tensors()
    inputs = [tensor.to(dtype).float() for tensor in inputs]
    argmax, found = gradients(max_pooled_cosine, inputs, {}, grad, dtype)
    plain_argmax, plain = gradients(naive, inputs, {}, grad, dtype)
    right, truth = gradients(reference.max_pooled_cosine, inputs, {}, grad, torch.float64)
    assert (argmax != right).sum() <= (plain_argmax != right).sum()
    for one, other, true in zip(found, plain, truth, strict=True):
        assert error(one, true) <= 2 * error(other, true)


@pytest.mark.parametrize("scale", [1e-3, 100.0])
def test_lengths_do_not_matter_in_half_precision(scale: float) -> None:
    inputs, options, grad = Case(3, 2, 2, 20, 64, 5).tensors()
    inputs = [(tensor * scale).half().float() for tensor in inputs]
    _, found = gradients(max_pooled_cosine, inputs, options, grad, torch.float16)
    _, truth = gradients(reference.max_pooled_cosine, inputs, options, grad, torch.float64)
    assert error(found[0], truth[0]) <= 2e-3


def test_ties_go_to_the_lowest_cell() -> None:
    # signs: every sum is exact, so that equal cells give equal cosines
    audio, visual, gate = (torch.sign(torch.randn(2, 1, 16)) for _ in range(3))
    visual = visual.expand(2, 150, 16)
    for implementation in (max_pooled_cosine, reference.max_pooled_cosine):
        assert (implementation(audio, visual, gate)[1] == 0).all()


@pytest.mark.parametrize(
    ("case", "limit"),
    [
        # lengths are taken in a pass of their own, which reads the inputs and writes unit sources and gates
        (Case(32, 2, 1, 49, 512, -1), 2.6),
        # every image reads the sources and their gates again, from cache: they are small
        (Case(32, 2, 32, 49, 512, -1), 2.6),
        (Case(32, 2, 32, 49, 512, 0), 4.7),
    ],
    ids=str,
)
def test_bytes_moved(case: Case, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = [tensor.half() for tensor in case.tensors()[0]]
    moved = count_bytes(monkeypatch, lambda: max_pooled_cosine(*halves))
    least = 2 * sum(tensor.numel() for tensor in halves) + case.b * case.m * case.n * (4 + 8)
    print(f"{case}: {moved / least:.2f} of the least")
    assert least <= moved <= limit * least


def test_cells_that_never_win_get_no_gradient() -> None:
    inputs, options, grad = Case(2, 1, 3, 30, 16, 4).tensors()
    argmax, (_, _, slope, _) = gradients(max_pooled_cosine, inputs, options, grad, torch.float32)
    for image in range(3):
        winners = set(argmax[:, image][argmax[:, image] >= 0].tolist())
        assert {cell for cell in range(30) if slope[image, cell].abs().max() > 0} == winners


def test_inputs_need_not_be_contiguous() -> None:
    (audio, visual, gate), options, _ = Case(3, 2, 4, 20, 16, 5).tensors()
    odd = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (audio, visual, gate)]
    torch.testing.assert_close(max_pooled_cosine(*odd, **options), max_pooled_cosine(audio, visual, gate, **options))


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)], ids=str)
def test_nothing_in_gives_nothing_out(shape: tuple[int, int, int]) -> None:
    audio = torch.zeros(shape[0], shape[1], 8, requires_grad=True)
    visual = torch.zeros(shape[2], 5, 8, requires_grad=True)
    similarity, argmax = max_pooled_cosine(audio, visual)
    assert similarity.shape == argmax.shape == (shape[0], shape[2], shape[1])
    similarity.sum().backward()


def test_the_argmax_has_no_gradient() -> None:
    (audio, visual, gate), options, _ = Case(3, 2, 4, 20, 16, 5).tensors()
    argmax = max_pooled_cosine(audio.requires_grad_(), visual, gate, **options)[1]
    assert not argmax.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        argmax.float().sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, v, g: (a[:, :, :4], v, g), "of one width"),
        (lambda a, v, g: (a, v, g[:1]), "visual's M and D"),
        (lambda a, v, g: (a.half(), v, g), "inputs of one dtype"),
        (lambda a, v, g: (a, v[:, :0], g), "at least one cell"),
    ],
)
def test_bad_input(change: Any, message: str) -> None:
    (audio, visual, gate), _, _ = Case(3, 2, 4, 20, 16, 0).tensors()
    with pytest.raises(ValueError, match=message):
        max_pooled_cosine(*change(audio, visual, gate))


def test_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_KERNELS", "triton")
    with pytest.raises(ValueError, match="widths up to 1024, got 1100"):
        max_pooled_cosine(torch.zeros(1, 2, 1100), torch.zeros(1, 2, 1100))


def test_the_operator_is_well_formed() -> None:
    (audio, visual, gate), options, _ = Case(2, 2, 2, 9, 16, 5).tensors()
    arguments = tuple(tensor.requires_grad_() for tensor in (audio, visual, gate))
    torch.library.opcheck(op.max_pooled_cosine_op, (*arguments, options["gate_index"].int()))
    torch.library.opcheck(op.max_pooled_cosine_op, (*arguments[:2], None, None))


NOT_FINITE = [float("nan"), float("inf")]


@pytest.mark.parametrize("bad", NOT_FINITE, ids=str)
@pytest.mark.parametrize("classes", [-1, 5])
def test_what_is_not_finite_is_no_maximum_to_hide(classes: int, bad: float) -> None:
    """Training must see that its numbers are none: what a bad source, cell or gate takes part in is NaN."""
    inputs, options, _ = Case(3, 2, 3, 70, 16, classes).tensors()
    if classes > 0:
        options["gate_index"] = torch.tensor([[0, 1], [2, 3], [4, 1]])
    for at in range(len(inputs)):
        spoiled = [tensor.clone() for tensor in inputs]
        spoiled[at][1, 1, 3] = bad
        found, truth = (form(*spoiled, **options)[0] for form in (max_pooled_cosine, reference.max_pooled_cosine))
        assert found.isnan().any() and not found.isnan().all()
        torch.testing.assert_close(found, truth, equal_nan=True, rtol=1e-4, atol=1e-5)


def test_gates_are_counted_from_the_end_as_in_the_reference() -> None:
    (audio, visual, gate), options, _ = Case(3, 2, 3, 9, 16, 5).tensors()
    grad = torch.randn(3, 3, 2)
    options = {"gate_index": torch.tensor([[0, -1], [1, 3], [-5, 2]])}
    _, found = gradients(max_pooled_cosine, [audio, visual, gate], options, grad, torch.float32)
    _, truth = gradients(reference.max_pooled_cosine, [audio, visual, gate], options, grad, torch.float64)
    for one, other in zip(found, truth, strict=True):
        assert error(one, other) <= 1e-5


def test_a_gate_that_is_none_gives_nan_and_no_gradient() -> None:
    """A kernel can't raise; it must not read what lies beside the gates either."""
    inputs = [tensor.requires_grad_() for tensor in Case(3, 2, 3, 9, 16, 5).tensors()[0]]
    index = torch.tensor([[0, 5], [1, 1 << 30], [-6, 2]])
    similarity, argmax = max_pooled_cosine(*inputs, gate_index=index)
    outside = ((index < -5) | (index > 4))[:, None].expand_as(similarity)
    assert torch.equal(similarity.isnan(), outside)
    assert ((argmax >= 0) & (argmax < 9)).all()
    found = torch.autograd.grad(similarity.nansum(), inputs)
    index = index.where((index >= -5) & (index <= 4), 0)
    right, _ = reference.max_pooled_cosine(*inputs, gate_index=index)
    truth = torch.autograd.grad(right.masked_fill(outside, 0.0).sum(), inputs)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-5)


def test_inputs_of_two_devices_are_refused() -> None:
    """Kernels are launched with addresses: one of another device is none."""
    (audio, visual, gate), options, _ = Case(3, 2, 4, 20, 16, 5).tensors()
    with pytest.raises(ValueError, match="inputs on one device, got cpu, meta: move them"):
        max_pooled_cosine(audio, visual.to("meta"))
    with pytest.raises(ValueError, match="inputs on one device, got cpu, meta: move them"):
        max_pooled_cosine(audio, visual, gate, gate_index=options["gate_index"].to("meta"))


def test_counts_take_64_bits_before_they_overflow() -> None:
    # the last block's places beyond the rows count on from the rows
    rows = 1 << 16
    assert plan_order(rows, (1 << 15) - 3)["WIDE"] is False
    assert plan_order(rows, (1 << 15) - 2)["WIDE"] is True
    assert plan_order(3, ((1 << 31) - 10) // 3 - 2)["WIDE"] is True
