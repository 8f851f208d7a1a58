"""Compiles the two halves ahead of time with AOTInductor: one package each, for this machine's GPU or its CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avgn.export.optimize import OptimizedModel
from avgn.runtime.contract import HALVES
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.engines.trust import cpu_target
from avgn.runtime.errors import FailureError
from avgn.training.compiling import check_compiler

Report = Callable[[str], None]
# threads as they are at run time; headers are compiled with the two files that need them, not ahead for many
SETTINGS: dict[str, bool] = {"cpp.dynamic_threads": True, "aot_inductor.precompile_headers": False}
# the host's part of a package for a GPU computes nothing: PyTorch would try each of the processor's vector instructions
# by a program that it compiles and runs, half of all the time that such a package takes
GPU_SETTINGS = {**SETTINGS, "cpp.vec_isa_ok": False}


def target() -> str:
    """Return what packages made here run on: sm_90 with a GPU, else cpu-x86_64-avx512 or the like."""
    gpu = find_gpu()
    return cpu_target() if isinstance(gpu, str) or not torch.cuda.is_available() else gpu.target


def check_aoti() -> None:
    """Raise InputError where no package can be built."""
    check_compiler("format aoti", "leave that format out")


def build_packages(optimized: OptimizedModel, folder: Path, suffix: str, report: Report) -> dict[str, Path]:
    """Write the package of each half, of what `optimize` or `to_mixed` gave; returns the files by half.

    Any batch and any picture size divisible by 32 fit one package. The halves are compiled beside each other, each in a
    process of its own. Raises FailureError when the compiler fails.
    """
    report(f"compiling both halves for {target()}")
    files = {half: folder / f"{half}{suffix}.pt2" for half in HALVES}
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "model"
        torch.save(optimized, kept)
        device = _device()
        settings = SETTINGS if device == "cpu" else GPU_SETTINGS
        orders = {
            half: {"model": str(kept), "half": half, "file": str(file), "device": device, "settings": settings}
            for half, file in files.items()
        }
        children = {half: _start(order) for half, order in orders.items()}
        try:
            for half, child in children.items():
                said = child.communicate()[0]
                if child.returncode or not files[half].is_file():
                    reason = " ".join(said.split())[-240:]
                    raise FailureError(
                        f"the {half} half can't be compiled ahead of time ({reason}): leave --format aoti out"
                    )
        finally:
            for child in children.values():
                child.kill()
                child.wait()
    return files


def _start(order: dict[str, Any]) -> subprocess.Popen[str]:
    """Return a process that builds one package."""
    # what is imported here is imported there, from wherever it was
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", "avgn.export.aoti_child", json.dumps(order)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _device() -> str:
    return "cpu" if target().startswith("cpu") else "cuda"
