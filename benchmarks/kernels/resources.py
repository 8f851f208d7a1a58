"""Compiles every kernel ahead of time and reads registers, stack, shared memory and matrix instructions."""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from avgn.kernels.grouping_attention import fused_backward as grouping_backward
from avgn.kernels.grouping_attention import fused_forward as grouping_forward
from avgn.kernels.grouping_attention import plan as grouping_plan
from avgn.kernels.launch import SHARED_MEMORY
from avgn.kernels.max_pooled_cosine import fused_backward as cosine_backward
from avgn.kernels.max_pooled_cosine import fused_forward as cosine_forward
from avgn.kernels.max_pooled_cosine import plan as cosine_plan

CHIPS = {major * 10 + minor: size for (major, minor), size in SHARED_MEMORY.items()}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
MATRICES = ("query", "key", "value", "out", "grad_q", "grad_k", "grad_v", "audio", "visual", "gate",
            "grad_audio", "grad_visual", "grad_gate", "unit_audio", "unit_gate", "weights", "slopes")  # fmt: skip
INTEGERS = {
    "row_winner": "*i32",
    "gate_id": "*i64",
    "argmax": "*i64",
    "keys": "*i64",
    "order": "*i32",
    "starts": "*i32",
    "where": "*i32",
}
# a warp-group product whose left operand comes from registers instead of a descriptor of shared memory
REGISTER_OPERAND = re.compile(r"\b[HQI]GMMA\S*\s+R\d+, R\d+")
INSTRUCTIONS = ("HMMA", "HGMMA", "UTCHMMA", "STL", "LDL")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """B sounds and images of N sources, P cells, C classes (none: no gates, and one class to group), D width."""

    b: int = 128
    n: int = 2
    p: int = 49
    c: int = 37
    d: int = 512


def kernels(shape: Shape, dtype: torch.dtype, shared: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (operation, kernel, constants and options) of everything that a training step launches."""
    facts = (shape.p, max(shape.c, 1), shape.d, dtype, shared)
    soft = (False, *facts)
    if grouping_plan.fits_whole(*facts[:2]):
        yield "grouping_attention", grouping_forward.forward_whole, grouping_plan.plan_whole(*soft)
    else:
        yield "grouping_attention", grouping_forward.forward_rows, grouping_plan.plan_rows(*soft)
        yield "grouping_attention", grouping_forward.forward_weights, grouping_plan.plan_weights(*soft[:3])
        yield "grouping_attention", grouping_forward.forward_products, grouping_plan.plan_mix(*facts)
    scores = grouping_plan.plan_scores(*soft)
    if not scores["WHOLE"]:
        yield "grouping_attention", grouping_backward.along, grouping_plan.plan_along(shape.d)
    yield "grouping_attention", grouping_backward.backward_scores, scores
    yield "grouping_attention", grouping_backward.backward_products, grouping_plan.plan_products(*facts)
    rows, gated = shape.b * shape.n, shape.c > 0
    forward = cosine_forward.forward_gated if gated else cosine_forward.forward_plain
    yield "max_pooled_cosine", cosine_forward.prepare, cosine_plan.plan_prepare(gated, shape.p, shape.d, dtype, shared)
    plan = cosine_plan.plan_forward(gated, rows, *facts[:1], *facts[2:])
    yield "max_pooled_cosine", forward, plan
    if not gated:
        yield "max_pooled_cosine", cosine_forward.pool, cosine_plan.plan_pool(rows, plan["BLOCK_P"])
    yield "max_pooled_cosine", cosine_backward.order, cosine_plan.plan_order(rows, shape.p)
    yield "max_pooled_cosine", cosine_backward.backward_audio, cosine_plan.plan_backward_audio(gated, shape.b, shape.d)
    yield "max_pooled_cosine", cosine_backward.backward_visual, cosine_plan.plan_lists(gated, shape.d)
    if gated:
        yield "max_pooled_cosine", cosine_backward.backward_gate, cosine_plan.plan_lists(None, shape.d)


def resources(chip: int, dtype: torch.dtype, shape: Shape | None = None) -> list[dict[str, Any]]:
    """Compile every kernel and return a row for each: registers a thread, stack and shared bytes, and counts of
    instructions in the SASS."""
    shape = shape or Shape()
    rows = []
    for operation, kernel, options in kernels(shape, dtype, CHIPS[chip]):
        found = compile_one(kernel, options, chip, dtype, shape)
        rows.append(
            {
                "chip": f"sm_{chip}",
                "dtype": NAMES[dtype],
                "shape": {"P": shape.p, "C": shape.c, "D": shape.d},
                "kernel": f"{operation}.{kernel.fn.__name__}",
                "shared_limit_bytes": CHIPS[chip],
                **found,
            }
        )
    return rows


def compile_one(kernel: Any, options: dict[str, Any], chip: int, dtype: torch.dtype, shape: Shape) -> dict[str, Any]:
    """Compile a kernel and return what it takes: registers, stack and shared bytes, and counts of instructions."""
    names = [parameter.name for parameter in kernel.params]
    signature = {name: "constexpr" if name in options else _kind(name, dtype, kernel) for name in names}
    ones = {name for name, size in _integers(shape).items() if size == 1 and name in names}
    signature |= dict.fromkeys(ones, "constexpr")
    constants = {(index,): options.get(name, 1) for index, name in enumerate(names) if name in options or name in ones}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if name not in ones and (signature[name].startswith("*") or name.startswith(("batch_", "stride_", "width")))
    }
    launch = {name: options[name] for name in ("num_warps", "num_stages") if name in options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = triton.compile(
            ASTSource(kernel, signature, constants, aligned), target=GPUTarget("cuda", chip, 32), options=launch
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(built.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", str(path))
        code = _tool("nvdisasm", "-c", str(path))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {usage[:200]!r}")
    counts = {name: len(re.findall(rf"\b{name}\b", code)) for name in INSTRUCTIONS}
    return {
        "registers": int(found[1]),
        "stack_bytes": int(found[2]),
        "shared_bytes": int(built.metadata.shared),
        "instructions": counts,
        "register_operands": len(REGISTER_OPERAND.findall(code)),
        "tf32": len(re.findall(r"\.TF32\b", code)),
    }


def _integers(shape: Shape) -> dict[str, int]:
    """Return the sizes that Triton turns into constants if they are 1."""
    gates = max(shape.c, 1)
    of_cosine = {"num_rows": shape.b * shape.n, "num_images": shape.b, "sources": shape.n, "gates": gates}
    return {**of_cosine, "num_cells": shape.p, "num_classes": gates}


def _kind(name: str, dtype: torch.dtype, kernel: Any) -> str:
    """Return the type of a parameter in Triton's words; what ends in `_ptr` is a pointer."""
    if not name.endswith("_ptr"):
        return "fp32" if name in ("scale", "eps") else "i32"
    name = name.removesuffix("_ptr")
    # the upstream gradient of the similarity is float32, that of the grouped values has the inputs' dtype
    if name in MATRICES or (name == "grad" and "query_ptr" in kernel.arg_names):
        return "*" + NAMES[dtype]
    return INTEGERS.get(name, "*fp32")


def _tool(name: str, *arguments: str) -> str:
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True).stdout
