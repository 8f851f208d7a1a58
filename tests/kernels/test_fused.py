"""The fused kernels in Triton's interpreter (in a process of its own: Triton decides at import) and their dispatch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from avgn.kernels import grouping_attention, max_pooled_cosine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NO_SCALARS = "only 0-dimensional arrays can be converted to Python scalars"


@pytest.mark.parametrize("room", ["grouping_attention", "max_pooled_cosine", "operators"])
def test_kernels_in_the_interpreter(room: str) -> None:
    triton = pytest.importorskip("triton", reason="triton has no wheel for this platform")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    found = subprocess.run(
        [*command, str(HERE / "interpreted" / f"check_{room}.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "AVGN_KERNELS": "", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if found.returncode and triton.__version__ < "3.8" and NO_SCALARS in found.stdout:
        pytest.skip(f"the interpreter of Triton {triton.__version__} needs NumPy before 2.4, here is {np.__version__}")
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert " passed" in found.stdout
    assert "skipped" not in found.stdout


def call() -> None:
    grouping_attention(torch.zeros(1, 4, 8), torch.zeros(1, 2, 8), torch.zeros(1, 4, 8), scale=1.0)


def test_a_cpu_tensor_can_not_be_forced_into_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"a tensor on 'cpu': move it to a CUDA device, set TRITON_INTERPRET=1"):
        call()


def test_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_KERNELS", "triton")
    monkeypatch.setattr("avgn.kernels.dispatch.HAS_TRITON", False)
    with pytest.raises(RuntimeError, match="pip install triton"):
        call()


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_KERNELS", "cuda")
    with pytest.raises(ValueError, match="AVGN_KERNELS='cuda' is not known: use reference or triton"):
        call()


def test_one_log_line_says_what_runs(caplog: pytest.LogCaptureFixture) -> None:
    from avgn.kernels import dispatch

    dispatch.log_once.cache_clear()
    with caplog.at_level("INFO", logger="avgn.kernels"):
        call()
        call()
    assert [record.getMessage() for record in caplog.records] == [
        "grouping_attention: reference (the tensors are torch.float32 on 'cpu')"
    ]


def test_the_reference_compiles_and_exports() -> None:
    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            grouped = grouping_attention(x, y, x, scale=0.5)
            assert isinstance(grouped, torch.Tensor)
            return grouped.sum() + max_pooled_cosine(y, x, y)[0].sum()

    x, y = torch.randn(2, 9, 8), torch.randn(2, 3, 8)
    truth = Both()(x, y)
    torch.testing.assert_close(torch.compile(Both(), fullgraph=True, backend="aot_eager")(x, y), truth)
    graph = torch.export.export(Both(), (x, y))
    assert not any("avgn" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph.module()(x, y), truth)
