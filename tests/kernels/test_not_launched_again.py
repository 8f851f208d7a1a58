"""Calls that are like one that was recorded in what is looked up, and must not be launched as that was."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import grouping_attention, launch, max_pooled_cosine, records, selfcheck

pytest.importorskip("triton", reason="triton has no wheel for this platform")

from avgn.kernels.grouping_attention import fused_backward as grouping_backward
from tests.kernels.stub_device import Kept, both, group, launches, pool, random, said, truth

pytestmark = pytest.mark.usefixtures("device")


def test_what_was_recorded_is_not_launched_where_the_reference_is_asked_for(
    known: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is computed by the kernels here: what they launch is not the truth."""
    assert not all(torch.equal(*pair) for pair in zip(both(*known), truth(*known), strict=True))
    said.clear()
    monkeypatch.setenv("AVGN_KERNELS", "reference")
    both(*known)
    monkeypatch.setenv("AVGN_KERNELS", "other")
    with pytest.raises(ValueError, match="is not known"):
        both(*known)
    assert not said


def test_what_was_recorded_is_not_launched_in_a_transform_or_a_trace(known: Kept) -> None:
    inputs, index = known
    wide = [tensor.detach() for tensor in inputs]
    many = [tensor.expand(3, *tensor.shape) for tensor in wide]
    found = torch.func.vmap(lambda *given: grouping_attention(*given, scale=0.25))(*many)
    assert torch.allclose(found[1], truth(wide, index)[0], atol=1e-6) and not said
    program = torch.compile(lambda *given: both(list(given), index), backend="eager", fullgraph=True)
    for one, other in zip(program(*wide), truth(wide, index), strict=True):
        assert one.shape == other.shape
    with torch._subclasses.FakeTensorMode() as mode:
        fakes: list[Tensor] = [mode.from_tensor(tensor) for tensor in wide]
        assert all(type(one) is not Tensor for one in both(fakes, torch.zeros(2, 5, dtype=torch.int64)))


def test_a_mask_of_another_shape_is_refused_however_often_it_was_launched(known: Kept) -> None:
    inputs, index = known
    cells, classes, _ = inputs
    for name, shape in (("audio_mask", (2, 4)), ("visual_mask", (5, 2))):
        with pytest.raises(ValueError, match=f"{name} must be"):
            max_pooled_cosine(classes, cells, classes, gate_index=index, **{name: torch.ones(shape, dtype=torch.bool)})
    mask = torch.tensor([[True, False, True, True, True]] * 2)
    similarity, where = max_pooled_cosine(classes, cells, classes, gate_index=index, audio_mask=mask)
    assert (similarity[:, :, 1] == -torch.inf).all() and (where[:, :, 1] == -1).all()


def test_gradients_of_other_layouts_are_made_dense(known: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    again = records.Record.again
    given: list[Tensor] = []

    def noted(record: records.Record, *inputs: Tensor) -> Any:
        given.append(inputs[0])
        return again(record, *inputs)

    out, similarity = both(*known)
    monkeypatch.setattr(records.Record, "again", noted)
    for result in (out, similarity):
        size = result.shape
        whole = torch.randn(size[::-1]).permute(2, 1, 0)
        begins_elsewhere = torch.randn(size.numel() + 1)[1:].view(size)
        for slope in (torch.ones(()).expand(size), whole, begins_elsewhere, torch.randn(size)):
            given.clear()
            torch.autograd.grad(result, known[0][0], slope, retain_graph=True)
            assert given and all(one.is_contiguous() and torch.equal(one, slope) for one in given)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_what_hooks_gave_back_is_launched_as_it_lies(dense: bool, same: bool) -> None:
    """Checkpoints and hooks save copies: other strides, and no longer one tensor where there was one."""
    size = (2, 9, 16 if dense else 48)
    cells, key = torch.randn(size), random(2, 5, 16)
    query = cells[..., :16].requires_grad_()
    value = query if same else torch.randn(2, 9, 16).requires_grad_()
    inputs = sorted({id(one): one for one in (query, key, value)}.values(), key=id)

    def step() -> list[tuple[Any, ...]]:
        said.clear()
        out = grouping_attention(query, key, value, scale=0.25)
        assert isinstance(out, Tensor)
        torch.autograd.grad(out, inputs, torch.ones_like(out))
        return list(said)

    for _ in range(2):
        step()
    kept: list[Tensor] = []

    def unpack(tensor: Tensor) -> Tensor:
        kept.append(tensor.contiguous().clone())
        return kept[-1]

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.detach(), unpack):
        first, second = step()[1:], step()[1:]
    # query, key, value, grouped values, sums
    left = [one for one in kept[-5:] if one.dtype == torch.float32]
    names = grouping_backward.backward_scores.arg_names
    for launched in (first[0], second[0]):
        found = dict(zip(names, launched[1:], strict=False))
        assert (found["batch_q"], found["stride_q"]) == (9 * 16, 16)
    found = dict(zip(names, second[0][1:], strict=False))
    addresses = {name: _address(found[f"{name}_ptr"]) for name in ("query", "key", "value")}
    assert list(addresses.values()) == [one.data_ptr() for one in left[:3]]


def test_results_that_hooks_gave_back_are_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first backward of all, and after ordinary ones were recorded; an odd one spoils none after it."""
    again = records.Record.again
    given: list[Tensor] = []

    def noted(record: records.Record, *inputs: Tensor) -> Any:
        given.extend(inputs)
        return again(record, *inputs)

    monkeypatch.setattr(records.Record, "again", noted)

    def turned(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() in pointers or tensor.dim() == 2:
            return tensor
        return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.dim() > 1 else tensor.repeat(2)[::2]

    for make in (lambda: pool(True), lambda: group(100, False), lambda: group(9, False, hard=True)):
        call, inputs = make()
        # inputs (and indices) laid otherwise are another call
        pointers = {one.data_ptr() for one in inputs}
        for odd in (True, False, True, False):
            with torch.autograd.graph.saved_tensors_hooks(
                lambda tensor: tensor.detach(), turned if odd else torch.clone
            ):
                said.clear()
                out = call()
            torch.autograd.grad(out, inputs, torch.ones_like(out))
            launched = [one for row in said for one in row if isinstance(one, Tensor)]
            # queries, keys and values may have gaps: their strides are launched with them
            results = [one for one in (*launched, *given) if one.dtype in (torch.int64, torch.int32) or one.dim() == 1]
            assert results and all(one.is_contiguous() for one in results)
    assert all(isinstance(record, records.Record) for record in records.records.values())


def test_other_kinds_of_tensors_are_given_to_the_reference(known: Kept) -> None:
    """They may have no memory of their own."""

    class Wrapped(Tensor):
        pass

    inputs, index = known
    for wanted, at in ((truth(inputs, index)[0], 0), (truth(inputs, index)[1], 1)):
        slope = torch.randn(wanted.shape)
        right = torch.autograd.grad(wanted, inputs, slope, allow_unused=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor.detach(), lambda tensor: tensor.as_subclass(Wrapped)
        ):
            out = both(inputs, index)[at]
        said.clear()
        found = torch.autograd.grad(out, inputs, slope, allow_unused=True)
        assert not said
        for one, other in zip(found, right, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one.as_subclass(Tensor), other)


def _address(value: Any) -> int:
    return value.data_ptr() if isinstance(value, Tensor) else value


def test_a_record_takes_no_other_number_of_inputs(known: Kept) -> None:
    record = next(iter(records.records.values()))
    assert record.again(*known[0], known[0][0]) is None and record.again(known[0][0]) is None


def test_what_is_empty_lies_nowhere_and_is_not_recorded() -> None:
    inputs, index = [random(4, 2, 16), random(4, 9, 16), random(4, 0, 16)], torch.zeros(4, 2, dtype=torch.int64)
    for _ in range(3):
        max_pooled_cosine(*inputs, gate_index=index)
    assert not records.records


@pytest.mark.parametrize("needs", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_gradients_that_are_not_needed_are_not_launched_again(needs: tuple[int, ...]) -> None:
    call, inputs = pool(True)
    for at, one in enumerate(inputs):
        one.requires_grad_(at in needs)
    wanted = [inputs[at] for at in needs]
    counts = []
    for _ in range(3):
        said.clear()
        out = call()
        found = torch.autograd.grad(out, wanted, torch.ones_like(out))
        assert [one.shape for one in found] == [one.shape for one in wanted]
        counts.append(len(said))
    assert counts == [2 + len({0} & {*needs}) + 2 * len({1, 2} & {*needs})] * 3


def test_what_is_being_recorded_is_forgotten_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread finds a kernel wrong while this one is launched for the first time."""
    call, inputs = pool(False)
    known = launch.launch_built

    def late(*given: Any) -> None:
        known(*given)
        records.forget()

    monkeypatch.setattr(launch, "launch_built", late)
    launches(call, *inputs)
    assert not records.records
    monkeypatch.setattr(launch, "launch_built", known)
    # or between asking whether it is right, and launching it
    make = Tensor.new_empty

    def early(*given: Any, **options: Any) -> Tensor:
        records.forget()
        return make(*given, **options)

    monkeypatch.setattr(Tensor, "new_empty", early)
    launches(call, *inputs)
    assert not records.records


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_a_check_that_was_not_finished_leaves_nothing(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "verdicts", {})
    monkeypatch.setattr(selfcheck, "_applies", lambda _: True)

    def stop(*_: object) -> float:
        raise error("no more")

    monkeypatch.setattr(importlib.import_module("avgn.kernels.grouping_attention.checks"), "error", stop)
    with pytest.raises(error):
        both([random(2, 9, 16), random(2, 5, 16), random(2, 9, 16)], torch.zeros(2, 5, dtype=torch.int64))
    assert not selfcheck.verdicts and not records.records


def test_a_kernel_that_is_wrong_is_not_launched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its check launched, with sizes like those of the call, is forgotten."""
    monkeypatch.setattr(selfcheck, "verdicts", {})
    monkeypatch.setattr(selfcheck, "_applies", lambda _: True)
    inputs, index = [random(2, 9, 16), random(2, 5, 16), random(2, 9, 16)], torch.zeros(2, 5, dtype=torch.int32)
    for _ in range(3):
        torch.testing.assert_close(both(inputs, index), truth(inputs, index))
    assert selfcheck.gave_way() and not records.records
