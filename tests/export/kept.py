"""Graphs that several tests need: each is made by the real exporter once a run, whichever process comes first."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from avgn.export import graphs
from avgn.export.inputs import Axes


class Kept:
    """Writes halves as the exporter does, from a folder of those that are made already."""

    def __init__(self, folder: Path, make: Callable[..., None]) -> None:
        self._folder, self._make = folder, make

    def write_half(
        self,
        module: nn.Module,
        arguments: tuple[torch.Tensor, ...],
        dynamic: Axes,
        half: str,
        file: Path,
        *,
        opset: int,
        facts: dict[str, str],
    ) -> None:
        """Write one half; what is kept is known by the module's whole content, its inputs and the opset."""
        content = io.BytesIO()
        torch.save((module, arguments), content)
        name = hashlib.sha256(content.getvalue() + f"{dynamic} {half} {opset}".encode()).hexdigest()
        kept = self._folder / f"{name}.onnx"
        with locked(kept.with_suffix(".lock")):
            if not kept.exists():
                partial = kept.with_suffix(".partial.onnx")
                self._make(module, arguments, dynamic, half, partial, opset=opset, facts={})
                partial.replace(kept)
        graph = onnx.load(kept)
        onnx.helper.set_model_props(graph, facts)
        onnx.save(graph, file)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def kept_graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the run's graphs, from which exports of this module take what is there."""
    base = tmp_path_factory.getbasetemp()
    shared = os.environ.get("AVGN_TESTS_SHARED")
    folder = Path(shared or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) / "graphs"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "write_half", Kept(folder, graphs.write_half).write_half)
        yield folder
