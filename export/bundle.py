"""From a checkpoint to a verified bundle."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import avgn
from avgn.checkpoint import WEIGHTS, load_model
from avgn.engine import TorchEngine
from avgn.export.graphs import INPUTS, MIN_OPSET, OUTPUTS, write_graphs
from avgn.export.verify import verify
from avgn.runtime.bundle import BUNDLE_FILE, Bundle, BundleInfo, TensorSpec, Variant, file_sha256, write_bundle_info
from avgn.runtime.engines import choose_engine
from avgn.runtime.errors import InputError

Report = Callable[[str], None]


def export_bundle(
    checkpoint: str | os.PathLike[str],
    bundle: str | os.PathLike[str],
    *,
    opset: int = MIN_OPSET,
    overwrite: bool = False,
    report: Report = lambda message: None,
) -> Bundle:
    """Write the fp32 ONNX bundle of a checkpoint and verify it against the core model before it is kept.

    The bundle's folder appears whole or not at all. Raises InputError for a checkpoint or folder that can't be used,
    FailureError when the graphs differ from the model by more than 1e-5.
    """
    target = Path(os.path.abspath(bundle))
    if opset < MIN_OPSET:
        raise InputError(f"opset must be at least {MIN_OPSET}, got {opset}: leave it out")
    if target.exists() and not overwrite:
        raise InputError(f"bundle {target} exists already: choose another folder or pass --overwrite")
    if target.exists() and not (target / BUNDLE_FILE).is_file():
        raise InputError(f"{target} is no bundle and is not overwritten: choose another folder")
    model = load_model(checkpoint)
    core = TorchEngine(model)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"bundle {target} can't be written ({error.strerror}): choose another folder") from None
        provenance = _provenance(Path(checkpoint), opset)
        info = replace(core.info, provenance=provenance)
        report("writing the graphs")
        files = write_graphs(model, partial, opset=opset, facts=_metadata(info))
        variant = _variant(info, model.config.dim, files)
        write_bundle_info(partial, replace(info, variants=(variant,)))
        report("comparing them with the model")
        engine = choose_engine(Bundle.load(partial), "onnxruntime")
        verified = replace(variant, verified=verify(core, engine, "fp32"))
        write_bundle_info(partial, replace(info, variants=(verified,)))
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    except OSError as error:
        raise InputError(f"bundle {target} can't be written ({error.strerror}): free some space") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.load(target)


def _variant(info: BundleInfo, dim: int, files: dict[str, Path]) -> Variant:
    count = len(info.classes)
    shapes: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "waveform": ("float32", ("batch", info.window_samples)),
        "image": ("uint8", ("batch", "height", "width", 3)),
        "sources": ("float32", ("batch", count, dim)),
        "audio_prob": ("float32", ("batch", count)),
        "maps": ("float32", ("batch", count, "rows", "columns")),
        "visual_prob": ("float32", ("batch", count)),
    }

    def specs(names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, dtype=shapes[name][0], shape=shapes[name][1]) for name in names)

    return Variant(
        precision="fp32",
        engine="onnxruntime",
        target="any",
        audio=files["audio"].name,
        image=files["image"].name,
        sha256={half: file_sha256(file) for half, file in files.items()},
        inputs={half: specs(names) for half, names in INPUTS.items()},
        outputs={half: specs(names) for half, names in OUTPUTS.items()},
    )


def _provenance(checkpoint: Path, opset: int) -> dict[str, str | int]:
    import onnx
    import onnxruntime

    return {
        "checkpoint_sha256": file_sha256(checkpoint / WEIGHTS),
        "avgn": avgn.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": opset,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _metadata(info: BundleInfo) -> dict[str, str]:
    """The bundle's facts as an ONNX graph can hold them."""
    facts = {
        "format": info.format,
        "version": info.version,
        "model": info.model,
        "classes": info.classes,
        "sample_rate": info.sample_rate,
        "window_seconds": info.window_seconds,
        "audio_hop_seconds": info.audio_hop_seconds,
        "image_size": info.image_size,
        "color_order": info.color_order,
        "grid": info.grid,
        "thresholds": {"audio": info.thresholds.audio, "visual": info.thresholds.visual},
        "has_presence": info.has_presence,
        "provenance": info.provenance,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
