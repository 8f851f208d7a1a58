"""Measures the forms of max-pooled cosine on this machine, each in a process of its own: time and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avgn.kernels.max_pooled_cosine import chunked, reference

FORMS = ("naive", "einsum", "chunked")
REPEATS = 5


def naive(audio: Tensor, visual: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the equation as it is usually written: [M,N,P,D] is stored."""
    modulated = torch.nn.functional.normalize(visual[:, None] * gate[:, :, None], dim=3)
    sound = torch.nn.functional.normalize(audio, dim=2)
    best = torch.einsum("bnd,mnpd->bmnp", sound, modulated).max(dim=3)
    return best.values, best.indices


def measure_all(b: int = 256, n: int = 2, p: int = 196, d: int = 512) -> dict[str, Any]:
    """Measure forward and backward of the loss in every form: seconds and "peak_bytes" above the inputs, gradients
    included."""
    shape = {"B": b, "N": n, "P": p, "D": d}
    found: dict[str, Any] = {"shape": shape, "threads": torch.get_num_threads(), "forms": {}}
    for form in FORMS:
        command = [sys.executable, "-m", "benchmarks.kernels.measure", form, *map(str, shape.values())]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "AVGN_KERNELS": ""}
        )
        found["forms"][form] = json.loads(done.stdout.splitlines()[-1])
    mine = found["forms"]["chunked"]
    for form in FORMS[:2]:
        found[f"{form}_over_chunked"] = {
            name: found["forms"][form][name] / mine[name] for name in ("peak_bytes", "p50")
        }
    return found


def _measure(form: str, b: int, n: int, p: int, d: int) -> dict[str, float]:
    functions: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
        "naive": naive,
        "einsum": reference.max_pooled_cosine,
        "chunked": chunked.max_pooled_cosine,
    }
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*shape, d, generator=generator) for shape in ((b, n), (b, p), (b, n))]
    for tensor in inputs:
        tensor.requires_grad_()
    target = torch.arange(b)

    def step() -> None:
        for tensor in inputs:
            tensor.grad = None
        similarity, _ = functions[form](*inputs)
        logits = (similarity / 0.03).transpose(1, 2).reshape(-1, b)
        torch.nn.functional.cross_entropy(logits, target.repeat_interleave(n)).backward()

    # libraries load on first use and are no part of a form
    small = [tensor[:2].detach().clone().requires_grad_() for tensor in inputs]
    functions[form](*small)[0].sum().backward()
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    ordered = torch.tensor(times, dtype=torch.float64)
    p20, p50, p80 = (float(ordered.quantile(q)) for q in (0.2, 0.5, 0.8))
    return {"peak_bytes": _memory("VmHWM") - before, "p20": p20, "p50": p50, "p80": p80}


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}: measure memory on Linux")


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], *map(int, sys.argv[2:]))))
