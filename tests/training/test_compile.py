"""`avgn train --compile`: the halves are one graph, the losses are those of eager steps, a missing compiler is said."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from avgn.config import Config, preset
from avgn.kernels import grouping_attention, max_pooled_cosine
from avgn.maxima import largest
from avgn.model import build_model
from avgn.systems import SYSTEMS
from avgn.training import TrainConfig
from avgn.training.module import AVGNModule
from tests.squares import CLASSES, write_squares

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, Any] = {
    "image_size": (64, 64),
    "width_visual": 4,
    "width_audio": 4,
    "dim": 16,
    "depth": 1,
    "heads": 2,
    "window_seconds": 0.3,
    "drop_path": 0.0,
}


def small() -> Config:
    return preset("avgn-tiny", classes=CLASSES, **SIZES)


def test_the_halves_are_one_graph_with_the_same_gradients(caplog: pytest.LogCaptureFixture) -> None:
    """All but the code made from it, which takes minutes: encoders, transformers, grouping, extra heads."""
    torch.manual_seed(0)
    config = small()
    module = AVGNModule(build_model(config).train(), TrainConfig(auxiliary=1.0), 1)
    waveform, image = 0.1 * torch.randn(3, config.window_samples), torch.randint(0, 256, (3, 64, 64, 3)).byte()
    weights = [p for p in module.model.parameters() if p.requires_grad]
    found = []
    with caplog.at_level(logging.ERROR):
        for encode in (module._encode, torch.compile(module._encode, backend="eager", fullgraph=True)):
            audio, cells = encode(module.model.frontend(waveform), image)
            assert audio.logit is not None and cells.logit is not None and cells.gate is not None
            assert module.auxiliary is not None
            features = dict(module.auxiliary.features)
            loss = module.model.localize(audio, cells).sum() + audio.logit.sum() + cells.logit.square().sum()
            loss = loss + features["audio"].square().sum() + features["visual"].sum()
            found.append((loss, torch.autograd.grad(loss, weights, allow_unused=True)))
    assert sum(grad is not None for grad in found[0][1]) > 0.9 * len(weights)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_what_is_compiled_on_a_gpu_holds_the_fused_operators_and_no_amax() -> None:
    """PyTorch 2.11 tells compiled code that it is being exported: both were left out of it."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def compute(cells: Tensor, tokens: Tensor) -> Tensor:
        grouped = grouping_attention(cells, tokens, cells, scale=0.1)
        assert isinstance(grouped, Tensor)
        return grouped.sum() + max_pooled_cosine(tokens, cells)[0].sum() + largest(cells, 1).sum()

    with FakeTensorMode():
        given = [torch.empty(2, count, 16, device="cuda", dtype=torch.float16) for count in (9, 5)]
        with contextlib.suppress(AssertionError, RuntimeError):
            # PyTorch can't run it where there is no GPU
            torch.compile(compute, backend=keep, fullgraph=True)(*given)
    (graph,) = graphs
    called = " ".join(str(node.target) for node in graph.graph.nodes)
    assert "avgn.grouping_attention" in called and "avgn.max_pooled_cosine" in called
    assert "amax" not in called and "max" in called.replace("max_pooled", "")


class Counts(TorchDispatchMode):
    """Counts the sums of truths, by which the gradient of amax divides: how many elements equal the maximum."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.sum.dim_IntList:
            self.count += args[0].dtype == torch.bool
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("system", [*SYSTEMS, "avgn-world"])
def test_no_gradient_divides_by_how_many_equal_a_maximum(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a compiled amax and the elements below it are rounded differently: its gradient was 0/0 everywhere.

    What is traced is run here as it is, for the code made from it differs from one chip and release to the next.
    """
    torch.manual_seed(0)
    if system == "avgn-world":
        config = preset(system, classes=("dog", "violin"))
    else:
        config = preset("avgn-tiny", classes=CLASSES, system=system, **SIZES)
    model = build_model(config).train()
    module = AVGNModule(model, TrainConfig(), 1)
    spectrogram = model.frontend(0.1 * torch.randn(3, model.config.window_samples))
    counts = []
    for compiled in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiled=compiled: compiled)
        audio, image = module._encode(spectrogram, torch.randint(0, 256, (3, *config.image_size, 3)).byte())
        given = [audio.embedding, audio.logit, image.cells, image.gate, image.logit]
        with Counts() as counted:
            sum(one.square().sum() for one in given if one is not None).backward()  # type: ignore[union-attr]
        counts.append(counted.count)
    assert counts[1] == 0
    # the eager gradient does: what is looked for would be found
    assert counts[0] > 0 or not system.startswith("avgn")


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [1, -1, (2, 3)], ids=str)
def test_a_compiled_maximum_is_that_of_eager_code(dim: int | tuple[int, int], keepdim: bool) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    found = torch.compile(lambda: largest(x, dim, keepdim=keepdim), backend="eager", fullgraph=True)()
    truth = x.amax(dim, keepdim)
    assert torch.equal(found, truth)
    slope = torch.randn_like(truth)
    assert torch.equal(torch.autograd.grad(found, x, slope)[0], torch.autograd.grad(truth, x, slope)[0])


def command(manifest: Path, output: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    sizes = [f"--model.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in SIZES.items()]
    given = ["--preset", "avgn-tiny", "--visual-weights", "random", "--batch-size", "8", "--learning-rate", "1e-5"]
    return subprocess.run(
        [sys.executable, "-m", "avgn", "train", str(manifest), "--output", str(output), *given, *sizes, *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=800,
    )


def test_a_missing_compiler_is_one_sentence(tmp_path: Path) -> None:
    manifest = write_squares(tmp_path / "train", 8)
    done = command(manifest, tmp_path / "out", "--compile", "true", "--steps", "1", CXX="no-such-compiler")
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
        "avgn: compile needs a C++ compiler and 'no-such-compiler' is not on the PATH: install g++, let CXX name "
        "another one, or leave --compile out"
    )
    assert not (tmp_path / "out").exists()


def test_compile_and_checkpointing_are_refused_together() -> None:
    with pytest.raises(ValueError, match="compile and checkpoint_activations can't be combined"):
        TrainConfig(compile=True, checkpoint_activations=True)


@pytest.mark.soak
def test_compiled_training_gives_the_losses_of_eager_training(tmp_path: Path) -> None:
    manifest = write_squares(tmp_path / "train", 32)
    losses = []
    for name, options in (("eager", []), ("compiled", ["--compile", "true"])):
        done = command(manifest, tmp_path / name, "--steps", "4", "--threads", "1", *options)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "losses.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_kept() -> None:
    """Tensors above malloc's largest threshold: without it each of them is mapped, and its pages cleared, anew.

    The first few may still make the heap grow; one more growth by one of ten tensors is no failure.
    """
    code = (
        "import resource, sys, torch\n"
        "from avgn.training.allocator import keep_freed_memory\n"
        "print(keep_freed_memory() if sys.argv[1] == 'keep' else True)\n"
        "for _ in range(3): torch.ones(16 << 20)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): torch.ones(16 << 20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {}
    for name in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", code, name], cwd=ROOT, capture_output=True, text=True, check=True)
        kept, count = done.stdout.split()
        if kept == "False":
            pytest.skip("malloc is not glibc's")
        faults[name] = int(count)
    assert faults["keep"] < 0.15 * faults["default"]
