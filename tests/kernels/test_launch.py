"""What calls launch, on a device whose kernels do nothing: what is launched again is what was launched at first."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import grouping_attention, launch, max_pooled_cosine, selfcheck

pytest.importorskip("triton", reason="triton has no wheel for this platform")

from avgn.kernels.grouping_attention import fused_backward as grouping_backward
from avgn.kernels.grouping_attention import fused_forward as grouping_forward
from avgn.kernels.max_pooled_cosine import fused_backward as cosine_backward
from avgn.kernels.max_pooled_cosine import fused_forward as cosine_forward
from benchmarks.kernels import host

# programs and arguments of each launch
said: list[tuple[Any, ...]] = []


class Says(host.Nothing):
    """Notes what it is launched with."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., host.Nothing]:
        def call(**arguments: Any) -> host.Nothing:
            said.append((grid[0], *(arguments[name] for name in self.arg_names)))
            return self

        return call

    def run(self, programs: int, *given: Any) -> None:
        """Note it."""
        said.append((programs, *given[8:]))


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(host, "Nothing", Says)
    said.clear()
    # what is freed within a call may come back at the same address as something else
    kept: list[Tensor] = []
    make = Tensor.new_empty

    def keep(*given: Any, **options: Any) -> Tensor:
        kept.append(make(*given, **options))
        return kept[-1]

    monkeypatch.setattr(Tensor, "new_empty", keep)
    with host.no_kernels():
        yield


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def launches(call: Callable[[], Tensor], *inputs: Tensor) -> list[tuple[Any, ...]]:
    """What a call and its backward launch, with inputs by their places and other tensors by when they first appear."""
    said.clear()
    out = call()
    torch.autograd.grad(out, sorted({id(one): one for one in inputs}.values(), key=id), torch.ones_like(out))
    names = {one.data_ptr(): f"input {at}" for at, one in enumerate(inputs)}

    def name(value: Any) -> Any:
        address = value.data_ptr() if isinstance(value, Tensor) else value
        # no number among the arguments is as large as an address
        if isinstance(address, int) and address > 1 << 32:
            return names.setdefault(address, f"other {len(names)}")
        return address

    return [tuple(name(value) for value in one) for one in said]


def group(cells: int, same: bool, **options: Any) -> tuple[Callable[[], Tensor], list[Tensor]]:
    query, key = random(3, cells, 16), random(3, 5, 16)
    value = query if same else random(3, cells, 16)

    def call() -> Tensor:
        found = grouping_attention(query, key, value, **{"scale": 0.25, **options})
        assert isinstance(found, Tensor)
        return found

    return call, [query, key, value]


def pool(gated: bool, cells: int = 9, **masks: Tensor) -> tuple[Callable[[], Tensor], list[Tensor]]:
    inputs = [random(4, 2, 16), random(4, cells, 16), *([random(4, 5, 16)] if gated else [])]
    index = torch.randint(5, (4, 2)) if gated else None
    return lambda: max_pooled_cosine(*inputs, gate_index=index, **masks)[0], inputs


CALLS: dict[str, Callable[[], tuple[Callable[[], Tensor], list[Tensor]]]] = {
    "cells are values": lambda: group(9, True),
    "values of their own": lambda: group(9, False),
    "more cells than a block": lambda: group(100, False),
    "hard": lambda: group(9, False, hard=True),
    "another scale": lambda: group(9, False, scale=0.5),
    "in steps": lambda: group(1200, False),
    "gates": lambda: pool(True),
    "no gates": lambda: pool(False),
    "one cell": lambda: pool(False, 1),
    "masks": lambda: pool(True, audio_mask=torch.ones(4, 2, dtype=torch.bool)),
}


def test_what_is_launched_again_is_what_was_launched_at_first() -> None:
    first = {name: launches(*_flat(make())) for name, make in CALLS.items()}
    assert launch.records
    for name, make in CALLS.items():
        assert launches(*_flat(make())) == first[name], name
    # the numbers differ, and what is launched with them
    assert first["values of their own"] != first["another scale"]


def _flat(made: tuple[Callable[[], Tensor], list[Tensor]]) -> tuple[Any, ...]:
    return made[0], *made[1]


def test_a_call_is_recorded_once() -> None:
    call, inputs = pool(True)
    launches(call, *inputs)
    before = {name: len(record.launches) for name, record in launch.records.items()}
    assert sorted(before.values()) == [2, 5]
    launches(call, *inputs)
    assert {name: len(record.launches) for name, record in launch.records.items()} == before
    assert not any(record.held for record in launch.records.values())


def test_tensors_that_begin_elsewhere_are_launched_one_by_one() -> None:
    """Triton compiles other kernels for them."""
    call, inputs = group(9, False)
    launches(call, *inputs)
    assert len(launch.records) == 2
    odd = [torch.randn(one.numel() + 1)[1:].view(one.shape).requires_grad_() for one in inputs]
    assert odd[0].data_ptr() % 16
    built = len(launch.built_kernels)
    out = grouping_attention(*odd, scale=0.25)
    assert isinstance(out, Tensor)
    assert len(launch.built_kernels) == built + 1 and len(launch.records) == 2


MODULES = (grouping_forward, grouping_backward, cosine_forward, cosine_backward)
Kept = tuple[list[Tensor], Tensor | None]


@pytest.fixture
def known() -> Kept:
    """Inputs of calls that are recorded: cells, classes and values for grouping, and the classes' indices."""
    inputs = [random(2, 9, 16), random(2, 5, 16), random(2, 9, 16)]
    index = torch.zeros(2, 5, dtype=torch.int64)
    for _ in range(2):
        out, similarity = both(inputs, index)
        torch.autograd.grad((out, similarity), inputs, (torch.ones_like(out), torch.ones_like(similarity)))
    assert len(launch.records) == 4
    said.clear()
    return inputs, index


def both(inputs: list[Tensor], index: Tensor | None) -> tuple[Tensor, Tensor]:
    cells, classes, values = inputs
    grouped = grouping_attention(cells, classes, values, scale=0.25)
    assert isinstance(grouped, Tensor)
    return grouped, max_pooled_cosine(classes, cells, classes.clone(), gate_index=index)[0]


def truth(inputs: list[Tensor], index: Tensor | None) -> tuple[Tensor, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVGN_KERNELS", "reference")
        return both(inputs, index)


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
    again = launch.Record.again
    given: list[Tensor] = []

    def noted(record: launch.Record, *inputs: Tensor) -> Any:
        given.append(inputs[0])
        return again(record, *inputs)

    out, similarity = both(*known)
    monkeypatch.setattr(launch.Record, "again", noted)
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
    again = launch.Record.again
    given: list[Tensor] = []

    def noted(record: launch.Record, *inputs: Tensor) -> Any:
        given.extend(inputs)
        return again(record, *inputs)

    monkeypatch.setattr(launch.Record, "again", noted)

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
    assert all(isinstance(record, launch.Record) for record in launch.records.values())


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
    record = next(iter(launch.records.values()))
    assert record.again(*known[0], known[0][0]) is None and record.again(known[0][0]) is None


def test_what_is_empty_lies_nowhere_and_is_not_recorded() -> None:
    inputs, index = [random(4, 2, 16), random(4, 9, 16), random(4, 0, 16)], torch.zeros(4, 2, dtype=torch.int64)
    for _ in range(3):
        max_pooled_cosine(*inputs, gate_index=index)
    assert not launch.records


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
        launch.forget()

    monkeypatch.setattr(launch, "launch_built", late)
    launches(call, *inputs)
    assert not launch.records
    monkeypatch.setattr(launch, "launch_built", known)
    # or between asking whether it is right, and launching it
    make = Tensor.new_empty

    def early(*given: Any, **options: Any) -> Tensor:
        launch.forget()
        return make(*given, **options)

    monkeypatch.setattr(Tensor, "new_empty", early)
    launches(call, *inputs)
    assert not launch.records


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
    assert not selfcheck.verdicts and not launch.records


def test_a_kernel_that_is_wrong_is_not_launched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its check launched, with sizes like those of the call, is forgotten."""
    monkeypatch.setattr(selfcheck, "verdicts", {})
    monkeypatch.setattr(selfcheck, "_applies", lambda _: True)
    inputs, index = [random(2, 9, 16), random(2, 5, 16), random(2, 9, 16)], torch.zeros(2, 5, dtype=torch.int32)
    for _ in range(3):
        torch.testing.assert_close(both(inputs, index), truth(inputs, index))
    assert selfcheck.gave_way() and not launch.records


# constants of a plan for the interpreter, and those of a device
COMPILED = {("SQUARES", "widen"): "halves", ("PRECISION", "widen"): "ieee"}


class NoDevice:
    """What Triton asks of a driver before it launches, for a device that isn't there."""

    def get_current_device(self) -> int:
        return -90

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_triton_itself_takes_what_is_launched(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of Triton's own path but the launch: arguments, the globals that a kernel reads, and compiling for 9.0.

    It refuses a kernel that reads a global which differs from itself, as NaN does; neither its interpreter nor its
    compiler alone looks.
    """
    from triton.runtime import driver

    taken: set[str] = set()

    class Dispatched(Says):
        def __init__(self, kernel: Any) -> None:
            super().__init__(kernel)
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., host.Nothing]:
            def call(**arguments: Any) -> host.Nothing:
                # what only the interpreter needs
                given = {name: _compiled(name, value) for name, value in arguments.items()}
                self.kernel.warmup(grid=grid, **given)
                taken.add(self.kernel.fn.__name__)
                return self

            return call

    monkeypatch.setattr(host, "Nothing", Dispatched)
    # no driver is active on a machine without a GPU
    monkeypatch.setattr(driver, "_active", NoDevice())
    for call, inputs in (group(9, False), group(9, False, hard=True), group(1200, False), pool(True), pool(False)):
        with torch.no_grad():
            for one in inputs:
                one.data = one.to(dtype)
        launches(call, *inputs)
    assert taken == {name for module in MODULES for name in jitted(module)}


def _compiled(name: str, value: Any) -> Any:
    return COMPILED.get((name, value), value) if isinstance(value, str) else value


def jitted(module: Any) -> list[str]:
    """The kernels that a module defines and that are launched."""
    own = {name: value for name, value in vars(module).items() if getattr(value, "module", None) == module.__name__}
    return [name for name, value in own.items() if hasattr(value, "warmup") and not name.startswith("_")]
