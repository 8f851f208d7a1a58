"""What calls launch, on a device whose kernels do nothing: what is launched again is what was launched at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import grouping_attention, launch, records

pytest.importorskip("triton", reason="triton has no wheel for this platform")

from avgn.kernels.grouping_attention import fused_backward as grouping_backward
from avgn.kernels.grouping_attention import fused_forward as grouping_forward
from avgn.kernels.max_pooled_cosine import fused_backward as cosine_backward
from avgn.kernels.max_pooled_cosine import fused_forward as cosine_forward
from benchmarks.kernels import host
from tests.kernels.stub_device import Says, group, launches, pool

pytestmark = pytest.mark.usefixtures("device")

MODULES = (grouping_forward, grouping_backward, cosine_forward, cosine_backward)

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
    assert records.records
    for name, make in CALLS.items():
        assert launches(*_flat(make())) == first[name], name
    # the numbers differ, and what is launched with them
    assert first["values of their own"] != first["another scale"]


def _flat(made: tuple[Callable[[], Tensor], list[Tensor]]) -> tuple[Any, ...]:
    return made[0], *made[1]


def test_a_call_is_recorded_once() -> None:
    call, inputs = pool(True)
    launches(call, *inputs)
    before = {name: len(record.launches) for name, record in records.records.items()}
    assert sorted(before.values()) == [2, 5]
    launches(call, *inputs)
    assert {name: len(record.launches) for name, record in records.records.items()} == before
    assert not any(record.held for record in records.records.values())


def test_tensors_that_begin_elsewhere_are_launched_one_by_one() -> None:
    """Triton compiles other kernels for them."""
    call, inputs = group(9, False)
    launches(call, *inputs)
    assert len(records.records) == 2
    odd = [torch.randn(one.numel() + 1)[1:].view(one.shape).requires_grad_() for one in inputs]
    assert odd[0].data_ptr() % 16
    built = len(launch.built_kernels)
    out = grouping_attention(*odd, scale=0.25)
    assert isinstance(out, Tensor)
    assert len(launch.built_kernels) == built + 1 and len(records.records) == 2


MODULES = (grouping_forward, grouping_backward, cosine_forward, cosine_backward)


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
