"""The operators in compiled and exported programs and in training, in Triton's interpreter."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.config import preset
from avgn.kernels import grouping_attention, max_pooled_cosine, selfcheck
from avgn.kernels.grouping_attention import launches as grouping_launches
from avgn.kernels.max_pooled_cosine import launches as cosine_launches
from avgn.losses import compute_losses
from avgn.model import AVGN
from avgn.types import Labels

assert os.environ.get("TRITON_INTERPRET") == "1"

grouping_op = importlib.import_module("avgn.kernels.grouping_attention.op")
cosine_op = importlib.import_module("avgn.kernels.max_pooled_cosine.op")


@pytest.mark.parametrize("cause", ["wrong", "broken"])
def test_a_kernel_that_is_wrong_gives_way_to_the_reference(
    cause: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here every rounding counts as wrong, or nothing can be launched: two operations, one line each way."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(selfcheck, "verdicts", {})
    monkeypatch.setattr(selfcheck, "_applies", lambda _: True)
    if cause == "wrong":
        monkeypatch.setattr(selfcheck, "LIMITS", dict.fromkeys(selfcheck.LIMITS, 0.0))
    else:
        monkeypatch.setattr(grouping_launches, "launch", refuse)
        monkeypatch.setattr(cosine_launches, "launch", refuse)
    cells, tokens = data()
    results = []
    for kernels in ("triton", "triton", "reference"):
        monkeypatch.setenv("AVGN_KERNELS", kernels)
        left, right = cells.clone().requires_grad_(), tokens.clone().requires_grad_()
        value = Both()(left, right)
        value.backward()
        results.append([value.detach(), left.grad, right.grad])
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    reason = "its result is off by" if cause == "wrong" else "it can't be run: no kernel image is available"
    assert len(said) == 2 and all(reason in line for line in said)
    assert said[0].startswith("grouping_attention in torch.float32 on cpu: the reference runs instead, because")
    assert said[1].startswith("gated max_pooled_cosine in torch.float32 on cpu")


def test_a_kernel_that_is_right_passes_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "verdicts", {})
    monkeypatch.setattr(selfcheck, "_applies", lambda _: True)
    monkeypatch.setenv("AVGN_KERNELS", "triton")
    cells, tokens = data()
    (Both()(cells.requires_grad_(), tokens.requires_grad_()) + max_pooled_cosine(tokens, cells)[0].sum()).backward()
    assert len(selfcheck.verdicts) == 6
    assert all(selfcheck.verdicts.values())


class Both(torch.nn.Module):
    """A program with both operations."""

    def forward(self, cells: Tensor, tokens: Tensor) -> Tensor:
        grouped = grouping_attention(cells, tokens, cells, scale=0.5)
        assert isinstance(grouped, Tensor)
        return grouped.sum() + max_pooled_cosine(tokens, cells, tokens)[0].sum()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 9, 16, generator=generator), torch.randn(2, 3, 16, generator=generator)


def test_compile_keeps_the_operators_and_their_gradients() -> None:
    cells, tokens = data()
    results = []
    for program in (Both(), torch.compile(Both(), fullgraph=True, backend="aot_eager")):
        left, right = cells.clone().requires_grad_(), tokens.clone().requires_grad_()
        value = program(left, right)
        value.backward()
        results.append((value.detach(), left.grad, right.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("right", [True, False], ids=["kernels", "references"])
def test_operators_keep_what_they_promise_the_compiler(right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, strides and offsets, of gradients in any layout too; also where a reference stands in a kernel's place."""
    for module in (grouping_op, cosine_op):
        monkeypatch.setattr(module, "trusted", lambda *_: right)
    cells, tokens = data()
    cells = cells.transpose(1, 2).contiguous().transpose(1, 2)
    ids = torch.zeros(2, 3, dtype=torch.int32)
    grouped = grouping_op.grouping_attention_op(cells, tokens, cells, 0.5, 0.0, False)
    pooled = cosine_op.max_pooled_cosine_op(tokens, cells, tokens, ids)
    one = torch.ones(())
    for slope in (one.expand(2, 3, 16), torch.randn(16, 3, 2).permute(2, 1, 0)):
        given: tuple[Any, ...] = (slope, cells, tokens, cells, *grouped, 0.5, 0.0, False)
        torch.library.opcheck(grouping_op.grouping_attention_backward_op, given, test_utils="test_faketensor")
    for slope in (one.expand(2, 2, 3), torch.randn(3, 2, 2).permute(1, 2, 0)):
        given = (slope, tokens, cells, tokens, ids, *pooled, [True, True, True])
        torch.library.opcheck(cosine_op.max_pooled_cosine_backward_op, given, test_utils="test_faketensor")


def test_export_keeps_the_operators_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_KERNELS", "triton")
    graph = torch.export.export(Both(), data())
    names = {str(node.target) for node in graph.graph.nodes}
    assert {"avgn.grouping_attention.default", "avgn.max_pooled_cosine.default"} <= names
    torch.testing.assert_close(graph.module()(*data()), Both()(*data()))


def test_export_otherwise_holds_standard_operators() -> None:
    graph = torch.export.export(Both(), data())
    assert not any("avgn" in str(node.target) for node in graph.graph.nodes)


def test_autocast_gives_the_operators_one_dtype() -> None:
    cells, tokens = data()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grouped = grouping_attention(cells.bfloat16(), tokens, cells, scale=0.5)
        half = grouping_attention(cells.bfloat16(), tokens.bfloat16(), cells.bfloat16(), scale=0.5)
        similarity, _ = max_pooled_cosine(tokens, cells.bfloat16(), tokens)
    assert isinstance(grouped, Tensor) and grouped.dtype == torch.float32
    assert isinstance(half, Tensor) and half.dtype == torch.bfloat16
    assert similarity.dtype == torch.float32


def train(kernels: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setenv("AVGN_KERNELS", kernels)
    torch.manual_seed(0)
    small = {"classes": ("a", "b", "c"), "image_size": (64, 64), "dim": 32, "depth": 1, "drop_path": 0.0}
    model = AVGN(preset("avgn-tiny", visual_gate="grouped", width_visual=8, width_audio=8, **small))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0005)
    generator = torch.Generator().manual_seed(1)
    waveform = 0.1 * torch.randn(4, model.config.window_samples, generator=generator)
    image = torch.randint(256, (4, 64, 64, 3), generator=generator, dtype=torch.uint8)
    present = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    order = torch.tensor([[0, 2], [1, 0], [1, 0], [2, 0]])
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    labels = Labels(sounding=present, visible=present, order=order, mask=mask)
    found = []
    for _ in range(4):
        audio, seen = model(waveform, image)
        losses = compute_losses(audio, seen, labels, model.token_logits(), model.config)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        found.append(float(losses.total.detach()))
    return found


def test_training_gives_the_losses_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, plain = train("triton", monkeypatch), train("reference", monkeypatch)
    assert plain[0] != plain[-1]
    assert fused[0] == pytest.approx(plain[0], rel=1e-5)
    # each step multiplies what rounding left in the one before, differently on every processor
    assert fused == pytest.approx(plain, rel=1e-4)


def test_transforms_of_functions_take_the_references() -> None:
    """PyTorch lets none of them differentiate a registered operator, and tangents through one are zero."""
    cells, tokens = data()

    def value(x: Tensor) -> Tensor:
        grouped = grouping_attention(x, tokens, x, scale=0.5)
        assert isinstance(grouped, Tensor)
        return grouped.square().sum() + max_pooled_cosine(tokens, x, tokens)[0].sum()

    leaf = cells.clone().requires_grad_()
    (truth,) = torch.autograd.grad(value(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(value)(cells), truth, rtol=1e-4, atol=1e-5)
    along = torch.func.jvp(value, (cells,), (torch.ones_like(cells),))[1]
    torch.testing.assert_close(along, truth.sum(), rtol=1e-3, atol=1e-3)
    each = torch.func.vmap(lambda x, y: grouping_attention(x, y, x, scale=0.5))(cells[:, None], tokens[:, None])
    assert isinstance(each, Tensor)
    torch.testing.assert_close(each[:, 0], grouping_attention(cells, tokens, cells, scale=0.5))
