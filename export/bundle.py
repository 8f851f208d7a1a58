"""From a checkpoint to a verified bundle of one or several variants."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import avgn
from avgn.checkpoint import WEIGHTS, load_model, read_facts
from avgn.config import with_values
from avgn.engine import TorchEngine
from avgn.export import aoti, engine_builder
from avgn.export.formats import FORMATS, check_request
from avgn.export.graphs import MIN_OPSET
from avgn.export.samples import InputBatch, read_batches, split_manifest
from avgn.export.variants import Graphs, Maker, describe_variant
from avgn.export.verify import accuracy, check_tolerance, compare, rendered_batches
from avgn.model import LocalizerModel
from avgn.runtime.bundle import (
    BUNDLE_FILE,
    Bundle,
    BundleInfo,
    Variant,
    file_sha256,
    graph_facts,
    untrained_warning,
    write_bundle_info,
)
from avgn.runtime.contract import PRECISIONS
from avgn.runtime.engines import choose_engine, load_engine
from avgn.runtime.engines.trust import trust
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.manifest import Manifest
from avgn.runtime.outputs import new_folder

Report = Callable[[str], None]
SAMPLES = 64
MAX_DROP = 1.0
# the least and the most side of pictures that an engine takes, in pixels
SIDES = (32, 1024)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export. None stands for "not given".

    `precisions` are graphs, `formats` what they are written as; engines come beside the ONNX graphs that they are
    built from. int8 needs `calibration` (its first `samples` items); `guard` (by default what calibration leaves) is
    the manifest on which CIoU@0.3 may drop by `max_drop` points at most. `batch` is an engine's (least, usual, most).
    """

    precisions: tuple[str, ...] = ("fp32",)
    formats: tuple[str, ...] = ("onnx",)
    opset: int | None = None
    calibration: Manifest | None = None
    samples: int | None = None
    guard: Manifest | None = None
    max_drop: float | None = None
    batch: tuple[int, int, int] | None = None
    image_size: tuple[int, int] | None = None
    compute_capabilities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given = {
            "opset": self.opset,
            "calibration": self.calibration,
            "samples": self.samples,
            "guard": self.guard,
            "max-drop": self.max_drop,
            "batch": self.batch,
            "image-size": self.image_size,
            "compute-capability": self.compute_capabilities,
        }
        check_request(self.formats, self.precisions, [name for name, value in given.items() if value is not None])
        if self.opset is not None and self.opset < MIN_OPSET:
            raise InputError(f"opset must be at least {MIN_OPSET}, got {self.opset}: leave it out")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise InputError(f"--max-drop must be 0 or more points, got {self.max_drop}: {MAX_DROP} is the default")
        if self.batch is not None and not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise InputError(
                f"--batch must be MIN,OPT,MAX in rising order from 1, got {self.batch}: for example 1,4,16"
            )
        low, high = SIDES
        if self.image_size is not None and any(side % 32 or not low <= side <= high for side in self.image_size):
            raise InputError(
                f"--image-size must be H,W divisible by 32 from {low} to {high}, got {self.image_size}: round it"
            )
        if self.samples is not None and self.calibration is None:
            raise InputError("--samples counts items of --calibration: pass a manifest too")
        if self.max_drop is not None and self.calibration is None and self.guard is None:
            raise InputError(
                "--max-drop is measured on annotated items: pass --guard MANIFEST or --calibration MANIFEST"
            )

    @property
    def engines(self) -> tuple[str, ...]:
        """The formats that are built from graphs."""
        return tuple(name for name in self.formats if name not in ("onnx", "aoti"))


def export_bundle(
    checkpoint: str | os.PathLike[str],
    bundle: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    report: Report = lambda message: None,
) -> Bundle:
    """Write a bundle of a checkpoint; every variant that runs here is compared with the core before it is kept.

    The bundle's folder appears whole or not at all. Raises InputError for a checkpoint, folder or option that can't be
    used, FailureError when a graph differs from the model by more than its precision may cost.
    """
    options = options or ExportOptions()
    target = Path(os.path.abspath(bundle))
    check_target(target, overwrite)
    for name in options.engines:
        _check_engine(name, options)
    if "aoti" in options.formats:
        aoti.check_aoti()
    model = _resized(load_model(checkpoint), options.image_size)
    core = TorchEngine(model)
    calibration, guard = _manifests(options)
    opset = options.opset or MIN_OPSET
    info = replace(core.info, provenance=_provenance(Path(checkpoint), opset, options))
    warning = untrained_warning(info, str(checkpoint))
    if warning is not None:
        report(warning)
    with new_folder(target, "bundle", overwrite=overwrite) as folder, tempfile.TemporaryDirectory() as scratch:
        scenes = rendered_batches(info)
        maker = Maker(
            model=model,
            folder=folder,
            opset=opset,
            facts=graph_facts(info),
            calibration=read_batches(info, calibration) if calibration else scenes,
            report=report,
        )
        before = accuracy(core, guard) if guard and options.precisions != ("fp32",) else None
        variants: list[Variant] = []
        # fp32 first: int8 is made from it
        for precision in sorted(options.precisions, key=PRECISIONS.index):
            report(f"{precision}: writing the graphs")
            graphs = maker.make(precision, Path(scratch))
            variant = describe_variant(info, model.config.source_dim, graphs.files, precision=precision)
            write_bundle_info(folder, replace(info, variants=(variant,)))
            report(f"{precision}: comparing them with the model")
            engine = choose_engine(Bundle.load(folder), "onnxruntime", precision)
            metrics = graphs.metrics | compare(core, engine, scenes)
            _check(metrics, precision)
            if guard and before and precision != "fp32":
                max_drop = MAX_DROP if options.max_drop is None else options.max_drop
                metrics |= _guarded(before, accuracy(engine, guard), precision, max_drop)
            variants.append(replace(variant, verified=metrics))
            variants += _build_engines(info, model, graphs, options, folder, report)
            if "aoti" in options.formats:
                variants += _build_packages(info, maker, precision, core, scenes, folder, report)
        write_bundle_info(folder, replace(info, variants=tuple(variants)))
    return Bundle.load(target)


def check_target(target: Path, overwrite: bool) -> None:
    """Raise InputError for a folder that holds something which must stay."""
    is_empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not is_empty and not overwrite:
        raise InputError(f"bundle {target} exists already: choose another folder or pass --overwrite")
    if target.exists() and not is_empty and not (target / BUNDLE_FILE).is_file():
        raise InputError(f"{target} is no bundle and is not overwritten: choose another folder")


def _check_engine(name: str, options: ExportOptions) -> None:
    """Raise InputError where engines can't be built here, before any work is done."""
    library = engine_builder.load_library(name)
    if name != "tensorrt-rtx":
        return
    for text in options.compute_capabilities or ():
        engine_builder.capability(library, text)
    if not options.compute_capabilities and not torch.cuda.is_available():
        raise InputError(
            "format tensorrt-rtx builds for this machine's GPU and there is none: name the targets, for example "
            "--compute-capability 8.6,8.9,12.0"
        )


def _resized(model: LocalizerModel, size: tuple[int, int] | None) -> LocalizerModel:
    """Return the model for pictures of another size: nothing in it depends on the size."""
    if size is not None:
        model.config = with_values(model.config, image_size=size)
    return model


def _manifests(options: ExportOptions) -> tuple[Manifest | None, Manifest | None]:
    if options.calibration is None:
        return None, options.guard
    count = SAMPLES if options.samples is None else options.samples
    return split_manifest(options.calibration, options.guard, count)


def _check(metrics: dict[str, float], precision: str) -> None:
    try:
        check_tolerance(metrics, precision)
        if precision == "fp16":
            check_tolerance(metrics | {"cosine_maps": metrics["half_cosine_maps"]}, precision)
    except FailureError as error:
        raise FailureError(f"{error}; no bundle was written") from None


def _guarded(before: dict[str, float], after: dict[str, float], precision: str, max_drop: float) -> dict[str, float]:
    """Return the accuracy of a variant and its drop in points. Raises FailureError when CIoU@0.3 drops too far."""
    drop = before["CIoU@0.3"] - after["CIoU@0.3"]
    if not drop <= max_drop:
        raise FailureError(
            f"{precision} lowers CIoU@0.3 from {before['CIoU@0.3']:.1f} to {after['CIoU@0.3']:.1f}, by more than "
            f"{max_drop:g} points; no bundle was written: calibrate on more samples or use another precision"
        )
    return {
        "ciou_0.3": after["CIoU@0.3"],
        "ciou_0.3_drop": drop,
        "cap": after["CAP"],
        "cap_drop": before["CAP"] - after["CAP"],
    }


def _build_engines(
    info: BundleInfo, model: LocalizerModel, graphs: Graphs, options: ExportOptions, folder: Path, report: Report
) -> list[Variant]:
    """Engines of one precision's graphs; they can't run here and stay unverified (docs/design.md, section 7)."""
    height, width = info.image_size
    low, high = SIDES
    profile = engine_builder.Profile(
        batch=options.batch or (1, 1, 16), height=(low, height, max(high, height)), width=(low, width, max(high, width))
    )
    parent = describe_variant(info, model.config.source_dim, graphs.files, precision=graphs.precision)
    made = []
    for name in options.engines:
        if graphs.precision not in FORMATS[name].precisions:
            continue
        for capability in (options.compute_capabilities or (None,)) if name == "tensorrt-rtx" else (None,):
            target = "this-gpu" if capability is None else f"sm_{capability.replace('.', '')}"
            report(f"{graphs.precision}: building {name} engines for {target}")
            files = {}
            for half, graph in graphs.files.items():
                data = engine_builder.build(
                    name,
                    graph,
                    inputs=parent.inputs[half],
                    outputs=parent.outputs[half],
                    profile=profile,
                    compute_capability=capability,
                    report=report,
                )
                files[half] = folder / f"{half}.{graphs.precision}.{name}.{target}{FORMATS[name].suffix}"
                files[half].write_bytes(data)
            made.append(
                describe_variant(
                    info, model.config.source_dim, files, precision=graphs.precision, engine=name, target=target
                )
            )
    return made


def _build_packages(
    info: BundleInfo,
    maker: Maker,
    precision: str,
    core: TorchEngine,
    scenes: Sequence[InputBatch],
    folder: Path,
    report: Report,
) -> list[Variant]:
    """Return the AOTInductor packages of one precision, compared with the core: they run where they are made."""
    target = aoti.target()
    if precision not in FORMATS["aoti"].precisions or (precision == "fp16" and target.startswith("cpu")):
        report(f"{precision}: no aoti packages, they hold fp32 (and on a GPU fp16)")
        return []
    optimized = maker.optimized_for(precision, gpu=not target.startswith("cpu"))
    files = aoti.build_packages(optimized, folder, f".{precision}.aoti.{target}", report)
    dim = maker.model.config.source_dim
    variant = describe_variant(info, dim, files, precision=precision, engine="aoti", target=target)
    trust([variant])
    write_bundle_info(folder, replace(info, variants=(variant,)))
    report(f"{precision}: comparing the packages with the model")
    metrics = compare(core, load_engine(Bundle.load(folder), variant, "aoti"), scenes)
    _check(metrics | {"half_cosine_maps": metrics["cosine_maps"]}, precision)
    return [replace(variant, verified=metrics)]


def _provenance(checkpoint: Path, opset: int, options: ExportOptions) -> dict[str, str | int]:
    import onnx
    import onnxruntime

    facts: dict[str, str | int] = {
        "checkpoint_sha256": file_sha256(checkpoint / WEIGHTS),
        "avgn": avgn.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": opset,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    if (training := _training(read_facts(checkpoint)["training"])) is not None:
        facts["training"] = training
    for name in options.engines:
        facts[name] = str(engine_builder.load_library(name).__version__)
    return facts


def _training(facts: dict[str, Any]) -> str | int | None:
    """Return how many steps the weights were trained, or what they were converted from; 0: as they were drawn.

    None where a checkpoint says something of its training, but not how many steps it had.
    """
    if converted := facts.get("converted"):
        return f"converted from {converted}"
    if not facts:
        return 0
    steps = facts.get("steps")
    return int(steps) if isinstance(steps, int) else None
