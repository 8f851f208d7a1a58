"""What can be exported: the formats with what each one needs and takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from avgn.runtime.contract import PRECISIONS
from avgn.runtime.errors import InputError

COMMON = ("opset", "calibration", "samples", "guard", "max-drop", "image-size")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format: its suffix, the extra that writes it, where it runs, its precisions and its options."""

    suffix: str
    extra: str
    runs_on: str
    precisions: tuple[str, ...]
    options: tuple[str, ...]


FORMATS = {
    "onnx": Format(suffix=".onnx", extra="export", runs_on="CPU and GPU", precisions=PRECISIONS, options=COMMON),
    "aoti": Format(
        suffix=".pt2",
        extra="train",
        runs_on="this machine's GPU, or its CPU",
        precisions=("fp32", "fp16"),
        options=COMMON,
    ),
    "tensorrt": Format(
        suffix=".engine",
        extra="gpu",
        runs_on="the GPU it was built on",
        precisions=("fp32", "fp16", "int8-gpu"),
        options=(*COMMON, "batch"),
    ),
    "tensorrt-rtx": Format(
        suffix=".engine",
        extra="rtx",
        runs_on="GPUs of its compute capability",
        precisions=("fp32", "fp16", "int8-gpu"),
        options=(*COMMON, "batch", "compute-capability"),
    ),
}


def format_table() -> list[str]:
    """Return the formats as lines for people."""
    rows = [("format", "suffix", "extra", "runs on", "precisions", "options")]
    rows += [
        (name, f.suffix, f.extra, f.runs_on, ", ".join(f.precisions), ", ".join(f"--{option}" for option in f.options))
        for name, f in FORMATS.items()
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def check_request(formats: Sequence[str], precisions: Sequence[str], options: Collection[str]) -> None:
    """Raise InputError unless every format is known, takes the precisions, and `options` (those given) fit one."""
    for what, names, known in (("format", formats, list(FORMATS)), ("precision", precisions, list(PRECISIONS))):
        if not names:
            raise InputError(f"no {what} was given: choose from {', '.join(known)}")
        for name in names:
            if name not in known:
                raise InputError(f"{what} {name!r} is not known: choose from {', '.join(known)}")
        if len(set(names)) != len(names):
            raise InputError(f"{what} list {','.join(names)} names one twice: name each once")
    for precision in precisions:
        if not any(precision in FORMATS[name].precisions for name in formats):
            usable = dict.fromkeys(known for name in formats for known in FORMATS[name].precisions)
            raise InputError(f"precision {precision} is not for format {', '.join(formats)}: use {', '.join(usable)}")
    for name in formats:
        if not any(precision in FORMATS[name].precisions for precision in precisions):
            raise InputError(
                f"format {name} takes none of the precisions {', '.join(precisions)}: use one of "
                f"{', '.join(FORMATS[name].precisions)}"
            )
    allowed = {option for name in formats for option in FORMATS[name].options}
    for option in options:
        if option not in allowed:
            listed = ", ".join(f"--{known}" for known in FORMATS[formats[0]].options)
            raise InputError(f"format {', '.join(formats)} takes no --{option}: it takes {listed}")
    quantised = [precision for precision in precisions if precision.startswith("int8")]
    if quantised and "calibration" not in options:
        raise InputError(
            f"precision {quantised[0]} is calibrated on samples like those it will see: pass --calibration MANIFEST"
        )
