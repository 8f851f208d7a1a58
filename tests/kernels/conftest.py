"""Fixtures of launches that no device runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.kernels import records
from benchmarks.kernels import host
from tests.kernels.stub_device import Kept, Says, both, random, said


@pytest.fixture
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


@pytest.fixture
def known(device: None) -> Kept:
    """Inputs of calls that are recorded: cells, classes and values for grouping, and the classes' indices."""
    inputs = [random(2, 9, 16), random(2, 5, 16), random(2, 9, 16)]
    index = torch.zeros(2, 5, dtype=torch.int64)
    for _ in range(2):
        out, similarity = both(inputs, index)
        torch.autograd.grad((out, similarity), inputs, (torch.ones_like(out), torch.ones_like(similarity)))
    assert len(records.records) == 4
    said.clear()
    return inputs, index
