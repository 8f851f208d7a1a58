"""Measures the kernels on a CUDA device: errors against float64 first, then times beside naive and compiled forms.

Times are microseconds by replay of a CUDA graph, which leaves out the host; `host_us` is what a call costs the host.
B batch, N sources, P cells, C classes, D width, G gates of an image (0: none).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from avgn.kernels import grouping_attention, max_pooled_cosine, selfcheck
from avgn.kernels.max_pooled_cosine import reference as cosine_reference

Form = Callable[..., Tensor]

# B, P, C, D
GROUPING_SHAPES = ((128, 49, 37, 512), (128, 196, 37, 512), (256, 49, 221, 512), (32, 784, 221, 512))
# B, N, P, D, G
COSINE_SHAPES = ((256, 2, 196, 512, 0), (128, 2, 49, 512, 37), (256, 2, 49, 512, 37), (512, 2, 49, 512, 221))
SHAPES: tuple[tuple[int, ...], ...] = (
    GROUPING_SHAPES[0],
    COSINE_SHAPES[0],
    COSINE_SHAPES[1],
    GROUPING_SHAPES[1],
    COSINE_SHAPES[2],
    GROUPING_SHAPES[3],
    GROUPING_SHAPES[2],
    COSINE_SHAPES[3],
)
# where torch.compile is measured as well: each takes seconds to compile
COMPILED_SHAPES = {(128, 49, 37, 512), (128, 196, 37, 512), (128, 2, 49, 512, 37), (256, 2, 49, 512, 37)}
# relative error of a whole tensor beyond which a kernel is not timed: ten times what fp16 rounds
TOLERANCE = 5e-3
# of gradients of cosines: they go to another cell where two are equal but for rounding, of one pair in a hundred
TIES_TOLERANCE = 0.3
# shape, form, kind of time, and how many times faster the kernels are to be
GOALS = (
    ((128, 49, 37, 512), "compiled", "forward_us", 3.0),
    ((128, 49, 37, 512), "compiled", "both_us", 2.0),
    ((128, 196, 37, 512), "compiled", "forward_us", 3.0),
    ((128, 196, 37, 512), "compiled", "both_us", 2.0),
    ((32, 784, 221, 512), "plain", "forward_us", 1.0),
    ((32, 784, 221, 512), "plain", "both_us", 1.0),
    ((128, 2, 49, 512, 37), "compiled", "forward_us", 5.0),
    ((128, 2, 49, 512, 37), "compiled", "both_us", 2.5),
    ((256, 2, 49, 512, 37), "compiled", "forward_us", 5.0),
    ((256, 2, 49, 512, 37), "compiled", "both_us", 2.5),
    ((256, 2, 196, 512, 0), "naive", "forward_us", 2.0),
    ((256, 2, 196, 512, 0), "naive", "both_us", 1.5),
)
HOST_GOAL_US = 40.0
# of pairs of the naive form with gates, in bytes; beyond it is left out
MOST_NAIVE_BYTES = 8 << 30


def measure_gpu() -> list[dict[str, Any]]:
    """Measure every shape: one row each, as `measure_shape` returns it."""
    return [measure_shape(shape) for shape in SHAPES]


def measure_shape(shape: tuple[int, ...]) -> dict[str, Any]:
    """Measure errors in fp16, and the times of each form: its forward alone, and with its backward.

    Raises RuntimeError when a kernel's result is wrong, or when the reference ran in its place.
    """
    inputs, forms = _forms(shape)
    row: dict[str, Any] = {"operation": "grouping attention" if len(shape) == 4 else "cosine", "shape": shape}
    row["errors"] = _errors(row["operation"], forms["fused"], forms["plain"], inputs, shape)
    for name, form in forms.items():
        row[name] = _times(form, inputs)
    if found := selfcheck.gave_way():
        raise RuntimeError(f"{row['operation']} {shape}: the reference ran in place of {', '.join(found)}")
    fused = row["fused"]
    row["ratios"] = {
        name: {kind: row[name][kind] / fused[kind] for kind in ("forward_us", "both_us")}
        for name in forms
        if name != "fused" and "both_us" in row[name]
    }
    if len(shape) == 5:
        b, n, p, d, _ = shape
        row["forward_tflops"] = 2e-6 * b * b * n * p * d / fused["forward_us"]
    torch.cuda.empty_cache()
    return row


def compare_goals(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare what was measured with the goals: one entry for each that was reached, with "found" and "met"."""
    by_shape = {tuple(row["shape"]): row for row in rows if "fused" in row}
    found: list[dict[str, Any]] = []
    for shape, form, kind, least in GOALS:
        ratio = by_shape.get(shape, {}).get("ratios", {}).get(form, {}).get(kind)
        if ratio is not None:
            goal = f"{shape}: {kind} of {form} at least {least:g} times"
            found.append({"goal": goal, "found": round(ratio, 2), "met": ratio >= least})
    for shape, row in by_shape.items():
        if (taken := row["fused"].get("forward_host_us")) is not None:
            goal = f"{shape}: forward_host_us at most {HOST_GOAL_US:g}"
            found.append({"goal": goal, "found": round(taken, 1), "met": taken <= HOST_GOAL_US})
    return found


def prepare_shape(shape: tuple[int, ...]) -> None:
    """Compile what `measure_shape` will run, forward and backward."""
    inputs, forms = _forms(shape)
    for name in ("fused", "compiled"):
        if name in forms:
            for backward in (False, True):
                _step(forms[name], [tensor.clone().requires_grad_(backward) for tensor in inputs], backward)()
    torch.cuda.synchronize()


def _forms(shape: tuple[int, ...]) -> tuple[list[Tensor], dict[str, Form]]:
    inputs, forms = _grouping(*shape) if len(shape) == 4 else _cosine(*shape)
    if shape in COMPILED_SHAPES:
        forms["compiled"] = torch.compile(forms["plain"], dynamic=False)
    return inputs, forms


def _grouping(b: int, p: int, c: int, d: int) -> tuple[list[Tensor], dict[str, Form]]:
    scale = d**-0.5
    inputs = [_random(b, count, d, seed=seed) for seed, count in enumerate((p, c, p))]

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = grouping_attention(query, key, value, scale=scale)
        assert isinstance(found, Tensor)
        return found

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = torch.softmax(query @ key.transpose(1, 2) * scale, dim=2)
        return (weights / weights.sum(dim=1, keepdim=True)).transpose(1, 2) @ value

    return inputs, {"fused": fused, "plain": plain}


def _cosine(b: int, n: int, p: int, d: int, g: int) -> tuple[list[Tensor], dict[str, Form]]:
    inputs = [_random(b, count, d, seed=seed) for seed, count in enumerate((n, p, g)) if count]
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(g, (b, n), generator=generator).cuda() if g else None

    def fused(audio: Tensor, visual: Tensor, gate: Tensor | None = None) -> Tensor:
        return max_pooled_cosine(audio, visual, gate, gate_index=ids)[0]

    def plain(audio: Tensor, visual: Tensor, gate: Tensor | None = None) -> Tensor:
        return cosine_reference.max_pooled_cosine(audio, visual, gate, gate_index=ids)[0]

    def naive(audio: Tensor, visual: Tensor, gate: Tensor | None = None) -> Tensor:
        sound = torch.nn.functional.normalize(audio, dim=2)
        if gate is None:
            image = torch.nn.functional.normalize(visual, dim=2)
            return torch.einsum("bnd,mpd->bmnp", sound, image).amax(3)
        modulated = torch.nn.functional.normalize(visual[:, None] * gate[:, :, None], dim=3)
        every = torch.einsum("bnd,mgpd->bmngp", sound, modulated).amax(4)
        assert ids is not None
        return every.gather(3, ids[:, None, :, None].expand(b, b, n, 1)).squeeze(3)

    forms = {"fused": fused, "plain": plain}
    if max(b * max(g, 1) * p * d, b * b * n * max(g, 1) * p) * 2 < MOST_NAIVE_BYTES:
        forms["naive"] = naive
    return inputs, forms


def _errors(name: str, fused: Form, plain: Form, inputs: list[Tensor], shape: tuple[int, ...]) -> dict[str, float]:
    """Measure relative errors (of norms) against float64 on a part of the batch, gradients included."""
    # ids choose gates for whole batches: cosines are compared at the full size where float64 fits
    few = [tensor[:16] for tensor in inputs] if len(shape) == 4 else inputs
    if len(shape) == 5 and shape[0] > 256:
        return {}
    given = [tensor.detach().clone().requires_grad_() for tensor in few]
    exact = [tensor.detach().double().requires_grad_() for tensor in few]
    out, truth = fused(*given), plain(*exact)
    weights = _random(*truth.shape, seed=5)
    out.backward(weights.to(out.dtype))
    truth.backward(weights.double())
    errors = {
        "out": _relative(out, truth),
        "bias": float((out.detach().double() - truth.detach()).mean() / truth.detach().std()),
    }
    for position, (mine, true) in enumerate(zip(given, exact, strict=True)):
        assert mine.grad is not None and true.grad is not None
        errors[f"gradient_{position}"] = _relative(mine.grad, true.grad)
    loose = TOLERANCE if len(shape) == 4 else TIES_TOLERANCE
    limits = {key: loose if key.startswith("gradient") else TOLERANCE for key in errors}
    wrong = {key: value for key, value in errors.items() if not abs(value) <= limits[key]}
    if wrong:
        raise RuntimeError(f"{name} {shape} is off by {wrong} on this device: it is not timed")
    return errors


def _relative(found: Tensor, truth: Tensor) -> float:
    return float((found.detach().double() - truth.detach()).norm() / truth.detach().norm())


def _times(form: Form, inputs: list[Tensor]) -> dict[str, Any]:
    from triton.testing import do_bench_cudagraph

    row: dict[str, Any] = {}
    try:
        for kind, backward in (("forward", False), ("both", True)):
            tensors = [tensor.detach().clone().requires_grad_(backward) for tensor in inputs]
            step = _step(form, tensors, backward)
            step()
            row[f"{kind}_us"] = 1e3 * do_bench_cudagraph(step, rep=20, return_mode="median")
            row[f"{kind}_host_us"] = _host(step)
    except torch.OutOfMemoryError:
        row["out_of_memory"] = True
        torch.cuda.empty_cache()
    return row


def _step(form: Form, tensors: list[Tensor], backward: bool) -> Callable[[], None]:
    def step() -> None:
        out = form(*tensors)
        if backward:
            out.float().sum().backward()
            for tensor in tensors:
                tensor.grad = None

    return step


def _host(step: Callable[[], None], calls: int = 20) -> float:
    """Measure the microseconds that a call takes on the host: too few calls to fill the device's queue."""
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            step()
        times.append(1e6 * (time.perf_counter() - begin) / calls)
    torch.cuda.synchronize()
    return sorted(times)[2]


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).half().cuda()
