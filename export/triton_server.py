"""Lays a bundle out as a model repository of NVIDIA Triton Inference Server: one model per half, with batching."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avgn.runtime.bundle import BUNDLE_FILE, Bundle, Variant
from avgn.runtime.contract import HALVES, TensorSpec
from avgn.runtime.errors import InputError
from avgn.runtime.outputs import no_empty_folders, write_error
from avgn.runtime.outputs.names import new_name

# a variant's engine -> the server's backend and the name of its file
BACKENDS = {"onnxruntime": ("onnxruntime", "model.onnx"), "tensorrt": ("tensorrt", "model.plan")}
DTYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "int64": "TYPE_INT64"}
LABELS = "classes.txt"
MAX_BATCH = 16
QUEUE_MICROSECONDS = 2000


def write_repository(
    bundle: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    *,
    precision: str | None = None,
    engine: str = "onnxruntime",
    max_batch: int = MAX_BATCH,
) -> list[Path]:
    """Write models avgn_audio and avgn_image into a new or existing repository; returns their folders.

    `precision` chooses the variant (default: the first of `engine`). The server batches requests of equal picture
    sizes up to `max_batch`. Raises InputError for an engine that the server doesn't run, a variant that the bundle
    lacks, and models that are there already.
    """
    if engine not in BACKENDS:
        raise InputError(f"engine {engine!r} is not run by Triton Inference Server: choose {' or '.join(BACKENDS)}")
    if max_batch < 1:
        raise InputError(f"--max-batch must be at least 1, got {max_batch}: {MAX_BATCH} is the default")
    loaded = Bundle.load(bundle)
    found = [v for v in loaded.info.variants if v.engine == engine and precision in (None, v.precision)]
    if not found:
        held = ", ".join(f"{v.precision} for {v.engine}" for v in loaded.info.variants)
        raise InputError(
            f"bundle {loaded.path} holds no {precision or ''} variant for {engine}: it holds {held}".replace("  ", " ")
        )
    root = Path(os.path.abspath(repository))
    folders = [root / f"avgn_{half}" for half in HALVES]
    for folder in folders:
        if folder.exists():
            raise InputError(f"model {folder} exists already: choose another repository or remove it")
    with _all_or_none(folders) as partials:
        for half, folder, partial in zip(HALVES, folders, partials, strict=True):
            (partial / "1").mkdir()
            shutil.copyfile(loaded.graph(found[0], half), partial / "1" / BACKENDS[engine][1])
            (partial / LABELS).write_text("".join(f"{name}\n" for name in loaded.classes))
            shutil.copyfile(loaded.path / BUNDLE_FILE, partial / BUNDLE_FILE)
            (partial / "config.pbtxt").write_text(model_config(loaded, found[0], half, folder.name, max_batch))
    return folders


def model_config(bundle: Bundle, variant: Variant, half: str, name: str, max_batch: int) -> str:
    """Return the text of a half's config.pbtxt."""
    lines = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted(BACKENDS[variant.engine][0])}",
        f"max_batch_size: {max_batch}",
        *_tensors("input", variant.inputs[half]),
        *_tensors("output", variant.outputs[half]),
        f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}",
    ]
    facts = {
        "sample_rate": bundle.sample_rate,
        "window_seconds": bundle.window_seconds,
        "image_size": list(bundle.image_size),
        "precision": variant.precision,
    }
    for key, value in facts.items():
        text = _quoted(value if isinstance(value, str) else json.dumps(value))
        lines.append(f"parameters {{ key: {_quoted(key)} value {{ string_value: {text} }} }}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a string of protobuf's text format: UTF-8, in which all that is not a plain letter is an octal escape."""
    plain = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{plain}"'


def _tensors(side: str, specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    for spec in specs:
        # the server adds the batch itself
        dims = ", ".join(str(axis) if isinstance(axis, int) else "-1" for axis in spec.shape[1:])
        labels = f" label_filename: {_quoted(LABELS)}" if spec.name.endswith("_prob") else ""
        yield f"{side} {{ name: {_quoted(spec.name)} data_type: {DTYPES[spec.dtype]} dims: [ {dims} ]{labels} }}"


@contextmanager
def _all_or_none(folders: list[Path]) -> Iterator[list[Path]]:
    """Folders beside `folders` that become them together."""
    partials = [new_name(folder) for folder in folders]
    try:
        with no_empty_folders(folders[0].parent):
            for partial in partials:
                partial.mkdir(parents=True)
            try:
                yield partials
                for partial, folder in zip(partials, folders, strict=True):
                    partial.replace(folder)
            finally:
                for partial in partials:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise write_error(folders[0].parent, error, "repository") from None
