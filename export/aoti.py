"""Compiles the two halves ahead of time with AOTInductor: one package each, for this machine's GPU or its CPU."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._inductor
import torch._inductor.config
from torch import Tensor, nn

from avgn.export.halves import AudioHalf, ImageHalf
from avgn.model import TwoHalves
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.engines.trust import cpu_target
from avgn.runtime.errors import FailureError
from avgn.training.compiling import check_compiler

Report = Callable[[str], None]
# what a package may be asked for
MOST_BATCH, MOST_CELLS = 4096, 64
# threads as they are at run time; headers are compiled with the two files that need them, not ahead for many
SETTINGS = {"cpp.dynamic_threads": True, "aot_inductor.precompile_headers": False}


def target() -> str:
    """What packages made here run on: sm_90 with a GPU, else cpu-x86_64-avx512 or the like."""
    gpu = find_gpu()
    return cpu_target() if isinstance(gpu, str) or not torch.cuda.is_available() else gpu.target


def check_aoti() -> None:
    """Raise InputError where no package can be built."""
    check_compiler("format aoti", "leave that format out")


def build_packages(model: TwoHalves, folder: Path, suffix: str, report: Report) -> dict[str, Path]:
    """Write the package of each half of what `optimize` (or `to_mixed`) gave; the files by half.

    Any batch and any picture size divisible by 32 fit one package. Raises FailureError when the compiler fails.
    """
    device = "cpu" if target().startswith("cpu") else "cuda"
    files = {}
    for half, (module, inputs, dynamic) in _halves(model, device).items():
        files[half] = folder / f"{half}{suffix}.pt2"
        report(f"compiling the {half} half for {target()}")
        with _quiet(), torch.no_grad():
            try:
                program = torch.export.export(module.eval().to(device), inputs, dynamic_shapes=dynamic)
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(files[half]), inductor_configs=_settings()
                )
            except Exception as error:
                reason = " ".join(str(error).split())[-160:]
                raise FailureError(
                    f"the {half} half can't be compiled ahead of time ({reason}): leave --format aoti out"
                ) from None
            finally:
                module.cpu()
    return files


def _settings() -> dict[str, bool]:
    """Those that this release of PyTorch knows."""
    known = torch._inductor.config.get_config_copy()
    return {name: value for name, value in SETTINGS.items() if name in known}


def _halves(model: TwoHalves, device: str) -> dict[str, tuple[nn.Module, tuple[Tensor, ...], Any]]:
    config = model.config
    batch = torch.export.Dim("batch", min=1, max=MOST_BATCH)
    rows, columns = (torch.export.Dim(name, min=1, max=MOST_CELLS) for name in ("rows", "columns"))
    waveform = torch.zeros(2, config.window_samples, device=device)
    image = torch.zeros(2, *config.image_size, 3, dtype=torch.uint8, device=device)
    sources = torch.zeros(2, config.num_maps, config.source_dim, device=device)
    sides = {0: batch, 1: 32 * rows, 2: 32 * columns}
    return {
        "audio": (AudioHalf(model), (waveform,), ({0: batch},)),
        "image": (ImageHalf(model), (image, sources), (sides, {0: batch})),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the compiler says to those who develop it."""
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch._export", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
