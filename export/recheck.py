"""Verifies a bundle again, wherever it lies now: every variant on every engine that can run it here."""

from __future__ import annotations

import os
from typing import Any

from avgn.export.verify import accuracy, check_tolerance, compare, rendered_batches
from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.contract import PRECISIONS
from avgn.runtime.engines import ENGINES, load_engine, obstacle_of
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.manifest import Manifest

Row = dict[str, Any]


def recheck(
    bundle: str | os.PathLike[str], *, checkpoint: str | None = None, manifest: Manifest | None = None
) -> list[Row]:
    """Compare every variant with the model on each engine installed here; a row for each pair.

    A row has "precision", "target", "engine", "metrics" and "failure" (None when all is well).

    The reference is the checkpoint, or the bundle's fp32 ONNX graphs in ONNX Runtime. With a manifest, metrics hold
    CIoU@0.3 and CAP and their drops. A variant that no engine runs here has the engine None and empty metrics. Raises
    InputError where there is no reference.
    """
    loaded = Bundle.load(bundle)
    core = reference_engine(loaded, checkpoint)
    scenes = rendered_batches(loaded.info)
    before = accuracy(core, manifest) if manifest else None
    rows: list[Row] = []
    for variant in loaded.info.variants:
        names = [
            name
            for name, entry in ENGINES.items()
            if variant.engine in entry.reads and obstacle_of(name, loaded, variant) is None
        ]
        facts = {"precision": variant.precision, "target": variant.target}
        for name in names:
            engine = load_engine(loaded, variant, name)
            metrics = compare(core, engine, scenes)
            if manifest and before:
                after = accuracy(engine, manifest)
                metrics |= {"ciou_0.3": after["CIoU@0.3"], "ciou_0.3_drop": before["CIoU@0.3"] - after["CIoU@0.3"]}
                metrics |= {"cap": after["CAP"], "cap_drop": before["CAP"] - after["CAP"]}
            failure = None
            try:
                check_tolerance(metrics, variant.precision)
            except FailureError as error:
                failure = f"{name}: {error}"
            rows.append(facts | {"engine": name, "metrics": metrics, "failure": failure})
        if not names:
            rows.append(facts | {"engine": None, "metrics": {}, "failure": None})
    return rows


def recheck_table(rows: list[Row]) -> list[str]:
    """Return the rows as lines for people."""
    names = ("max abs", "mean abs", "cosine", "worst", "CIoU", "drop")
    lines = [f"{'precision':10}{'target':10}{'engine':13}" + "".join(f"{name:>10}" for name in names)]
    for row in rows:
        start = f"{row['precision']:10}{row['target']:10}{row['engine'] or '-':13}"
        metrics = row["metrics"]
        if not metrics:
            lines.append(start + "  can't run here")
            continue
        line = f"{metrics['max_abs_maps']:10.2e}{metrics['mean_abs_maps']:10.2e}"
        line += f"{metrics['cosine_maps_mean']:10.5f}{metrics['cosine_maps']:10.5f}"
        if "ciou_0.3" in metrics:
            line += f"{metrics['ciou_0.3']:10.1f}{metrics['ciou_0.3_drop']:10.2f}"
        lines.append(start + line)
    return lines


def reference_engine(bundle: Bundle, checkpoint: str | None) -> Engine:
    """Return what a bundle's variants are compared with: the core model of `checkpoint`, or (None) its fp32 ONNX
    graphs; those of the most exact precision for a bundle that was taught.

    Raises InputError for a checkpoint of another model and for a bundle without those graphs.
    """
    if checkpoint is not None:
        from avgn.checkpoint import load_model
        from avgn.engine import TorchEngine

        core = TorchEngine(load_model(checkpoint))
        if core.info.classes != bundle.info.classes or core.info.window_samples != bundle.info.window_samples:
            raise InputError(
                f"checkpoint {checkpoint} is not the model of bundle {bundle.path} (its classes or its window differ): "
                "give the checkpoint that the bundle was exported from"
            )
        return core
    graphs: list[Variant] = [v for v in bundle.info.variants if v.engine == "onnxruntime"]
    found = [v for v in graphs if v.precision == "fp32"]
    if not found and "taught" in bundle.info.provenance:
        # no checkpoint knows its classes: its graphs were compared with their rows when they were written
        found = sorted(graphs, key=lambda v: PRECISIONS.index(v.precision))
    if not found:
        raise InputError(f"bundle {bundle.path} holds no fp32 ONNX graphs to compare with: pass --checkpoint")
    return load_engine(bundle, found[0], "onnxruntime")
