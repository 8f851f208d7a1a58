"""Writes the graphs of one precision: what a bundle's variant is made of.

Legend: K maps, D width.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avgn.engine import TorchEngine
from avgn.export import mixed, quantize, sensitivity
from avgn.export.graphs import write_graphs
from avgn.export.halves import AudioHalf, HalvesEngine, ImageHalf
from avgn.export.optimize import FOLDED, OptimizedModel, optimize
from avgn.export.samples import InputBatch
from avgn.export.storage import store_halves
from avgn.export.verify import audio_difference, compare
from avgn.model import LocalizerModel
from avgn.runtime.bundle import file_sha256
from avgn.runtime.bundle_schema import BundleInfo, Variant
from avgn.runtime.contract import HALVES, INPUTS, OUTPUTS, TOLERANCES, tensors
from avgn.runtime.errors import FailureError
from avgn.types import AudioSources

Report = Callable[[str], None]
# samples that the search for sensitive layers runs on
EXAMINED = 16


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """The files of one precision, by half, and what was measured while they were made."""

    precision: str
    files: dict[str, Path]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Maker:
    """Writes graphs of a model into a folder; what several precisions need is made once."""

    model: LocalizerModel
    folder: Path
    opset: int
    facts: dict[str, str]
    calibration: Sequence[InputBatch] = ()
    report: Report = lambda message: None
    _optimized: OptimizedModel | None = None
    _fp32: dict[str, Path] | None = None
    _said: set[str] = field(default_factory=set)

    def make(self, precision: str, scratch: Path) -> Graphs:
        """Write the graphs of a precision; `scratch` takes what the bundle doesn't keep."""
        if precision == "fp32":
            written = self._write_fp32(scratch)
            stored = {half: store_halves(file, self.folder / file.name) for half, file in written.items()}
            return Graphs(precision=precision, files=stored)
        if precision == "fp16":
            return self._make_fp16()
        return self._make_int8(precision, scratch)

    @property
    def optimized(self) -> OptimizedModel:
        """The model as the graphs of fp32 and int8 compute it: they run on CPUs, too."""
        if self._optimized is None:
            self._optimized = optimize(self.model)
            if self.model.frontend.kind == FOLDED:
                moved = audio_difference(TorchEngine(self.model), HalvesEngine(self._optimized))
                allowed = TOLERANCES["fp32"].max_abs
                assert allowed is not None
                if not moved <= allowed / 2:
                    self.report(
                        f"the front-end's transform stays whole: with it folded, the sources move by {moved:.1e}"
                    )
                    self._optimized = optimize(self.model, front_end="whole")
            self._report_operations("", self._optimized)
        return self._optimized

    def optimized_for(self, precision: str, *, gpu: bool) -> OptimizedModel:
        """Return what graphs or packages of "fp32" or "fp16" are written from; `gpu`: they run on GPUs alone."""
        if gpu:
            optimized = optimize(self.model, front_end="framed")
            self._report_operations(f"{precision} for GPUs, ", optimized)
        else:
            optimized = self.optimized
        return mixed.to_mixed(optimized) if precision == "fp16" else optimized

    def _report_operations(self, what: str, optimized: OptimizedModel) -> None:
        """Say once for each form what optimization saves."""
        if what not in self._said:
            self._said.add(what)
            for line in operations(self.model, optimized):
                self.report(f"{what}{line}")

    def _write_fp32(self, folder: Path) -> dict[str, Path]:
        if self._fp32 is None:
            self._fp32 = write_graphs(self.optimized, folder, opset=self.opset, facts=self.facts)
        return self._fp32

    def _make_fp16(self) -> Graphs:
        # half precision is for GPUs
        model = self.optimized_for("fp16", gpu=True)
        engine = HalvesEngine(model)
        core = TorchEngine(self.model)
        batches = self.calibration
        metrics: dict[str, float] = {}

        def run() -> None:
            metrics.update(compare(core, engine, batches))

        largest = mixed.largest_activations(model, run)
        worst = max(largest, key=lambda name: largest[name] if np.isfinite(largest[name]) else np.inf)
        if not largest[worst] <= mixed.MAX_ACTIVATION:
            raise FailureError(
                f"fp16 overflows: {worst} reaches {largest[worst]:.3g}, at most {mixed.MAX_ACTIVATION:.0f} is safe: "
                "use fp32 or train with weight decay"
            )
        self.report(f"fp16: the largest activation is {largest[worst]:.3g} in {worst}")
        files = write_graphs(model, self.folder, opset=self.opset, facts=self.facts, suffix=".fp16")
        return Graphs(
            precision="fp16",
            files=files,
            metrics={
                "half_cosine_maps": metrics["cosine_maps"],
                "half_max_abs_maps": metrics["max_abs_maps"],
                "largest_activation": largest[worst],
            },
        )

    def _make_int8(self, flavour: str, scratch: Path) -> Graphs:
        source = self._write_fp32(scratch)
        core = TorchEngine(self.model)
        feeds: dict[str, list[quantize.Feed]] = {
            "audio": [{"waveform": batch.waveform} for batch in self.calibration],
            "image": [
                {"image": batch.image, "sources": core.run_audio(batch.waveform)["sources"]}
                for batch in self.calibration
            ],
        }
        files: dict[str, Path] = {}
        metrics: dict[str, float] = {}
        for half in HALVES:
            files[half] = self.folder / f"{half}.{flavour}.onnx"
            if half == "audio" and core.info.patches is not None:
                # a hop computes one patch: 8 bits save half a millisecond of it and cost what is told apart in mixtures
                store_halves(source[half], files[half])
                metrics["audio_float_share"] = 1.0
                continue
            metrics |= self._quantize_half(flavour, half, source[half], feeds[half], files[half], scratch)
        return Graphs(precision=flavour, files=files, metrics=metrics)

    def _quantize_half(
        self, flavour: str, half: str, source: Path, feeds: Sequence[quantize.Feed], out: Path, scratch: Path
    ) -> dict[str, float]:
        """Quantise a half with the better of the calibration methods, sensitive layers left float."""
        few = feeds[: max(1, EXAMINED // len(next(iter(feeds[0].values()))))]
        truth = sensitivity.run(source, feeds)
        self.report(f"{flavour}: {half} half, calibration")
        ranges = {method: quantize.calibrate(source, feeds, method) for method in quantize.METHODS}
        # which layers are sensitive depends little on the method
        reports = sensitivity.examine(source, flavour, ranges[quantize.METHODS[0]], few)
        kept = sensitivity.float_nodes(source, reports)
        trials = {method: scratch / f"{half}.{method}.onnx" for method in quantize.METHODS}
        errors = {}
        for method, trial in trials.items():
            quantize.quantize(source, trial, flavour, ranges[method], kept)
            errors[method] = sensitivity.distance(sensitivity.run(trial, feeds), truth)
        method = min(errors, key=lambda name: errors[name])
        error = errors[method]
        shutil.move(trials[method], out)
        self.report(f"{flavour}: {half} half, {method} chosen with a relative error of {error:.3g}")
        for line in sensitivity.table({half: reports}):
            self.report(line)
        return {
            f"{half}_float_share": sensitivity.float_share(reports),
            f"{half}_relative_error": error,
            f"{half}_calibration_percentile": float(method == "percentile"),
        }


def operations(model: LocalizerModel, optimized: OptimizedModel) -> list[str]:
    """Multiply-adds of both halves for one sample before and after optimization, as lines for people."""
    config = model.config
    waveform = torch.zeros(1, config.window_samples)
    image = torch.zeros(1, *config.image_size, 3, dtype=torch.uint8)
    sources = torch.zeros(1, config.num_maps, config.source_dim)
    given = AudioSources(embedding=sources, logit=None)
    counts = {
        "audio": (
            _multiply_adds(lambda: model.hand_over(model.encode_audio(waveform))),
            _multiply_adds(lambda: AudioHalf(optimized)(waveform)),
        ),
        "image": (
            _multiply_adds(lambda: model.localize(given, model.encode_image(image))),
            _multiply_adds(lambda: ImageHalf(optimized)(image, sources)),
        ),
    }
    return [
        f"{half} half: {before / 1e6:.2f} million multiply-adds, {after / 1e6:.2f} optimized"
        for half, (before, after) in counts.items()
    ]


def _multiply_adds(run: Callable[[], object]) -> float:
    # fused attention is not counted by every release of PyTorch, its products are
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() / 2


def describe_variant(
    info: BundleInfo,
    dim: int,
    files: Mapping[str, Path],
    *,
    precision: str,
    engine: str = "onnxruntime",
    target: str = "any",
    verified: dict[str, float] | None = None,
) -> Variant:
    """Return the entry of bundle.json for a pair of files."""
    specs = tensors(
        batch="batch",
        samples=info.graph_samples,
        image_size=("height", "width"),
        maps=len(info.classes),
        dim=dim,
        grid=("rows", "columns"),
    )
    return Variant(
        precision=precision,
        engine=engine,
        target=target,
        audio=files["audio"].name,
        image=files["image"].name,
        sha256={half: file_sha256(file) for half, file in files.items()},
        inputs={half: tuple(specs[name] for name in names) for half, names in INPUTS.items()},
        outputs={half: tuple(specs[name] for name in names) for half, names in OUTPUTS.items()},
        verified=verified,
    )
