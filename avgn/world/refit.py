"""What a fit on free recordings adds to the published audio rows: a file beside the table of classes.

A class that was fitted adds one row and one bias to each of its AudioSet names; the others stay as published.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from avgn.encoders.yamnet import WIDTH
from avgn.runtime.errors import InputError
from avgn.world.classes import world_classes

NAME = "refit.npz"
FORMAT = "avgn-world-refit"
ARRAYS = ("format", "classes", "rows", "bias", "provenance")
# no step of a fit is this long; what is longer was damaged or is in other units
LARGEST = 100.0


@dataclass(frozen=True, kw_only=True)
class Refit:
    """Holds what is added to the rows of `classes` (length N): rows [N,1024] float16, bias [N] float32.

    `provenance`: how it was made and from what. Raises ValueError for arrays that don't belong together.
    """

    classes: tuple[str, ...]
    rows: NDArray[np.float16]
    bias: NDArray[np.float32]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.classes)
        if len(set(self.classes)) != count:
            raise ValueError("it names a class twice")
        unknown = sorted(set(self.classes) - set(world_classes()))
        if unknown:
            raise ValueError(f"class {unknown[0]!r} is not one of the world model's")
        for name, values, kind, shape in (
            ("rows", self.rows, np.float16, (count, WIDTH)),
            ("bias", self.bias, np.float32, (count,)),
        ):
            if values.dtype != kind or values.shape != shape:
                raise ValueError(
                    f"{name} must be {np.dtype(kind)} {list(shape)}, got {values.dtype} {list(values.shape)}"
                )
            # written so that NaN is refused too
            if values.size and not float(np.abs(values.astype(np.float64)).max()) <= LARGEST:
                raise ValueError(f"{name} hold a number that is not finite or larger than {LARGEST:g}")

    def added(self, label: str) -> tuple[NDArray[np.float32], float] | None:
        """Return what the class's rows [1024] and biases gain; None for a class as published."""
        if label not in self.classes:
            return None
        index = self.classes.index(label)
        return self.rows[index].astype(np.float32), float(self.bias[index])


NOTHING = Refit(classes=(), rows=np.zeros((0, WIDTH), np.float16), bias=np.zeros(0, np.float32))


def read_refit(path: Path | None = None) -> Refit:
    """Read the fit in `path`, by default the package's own. Raises InputError for a file that is missing or damaged."""
    source = path or files("avgn.world") / NAME
    try:
        return _parse(source.read_bytes())
    except OSError as error:
        raise InputError(f"can't read the fitted audio rows {source}: {error.strerror}") from None
    except (ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{source} doesn't hold fitted audio rows ({reason}): `python -m recipes.world` makes them"
        ) from None


def write_refit(path: Path, refit: Refit) -> None:
    """Write a fit: the same bytes for the same content."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=np.array(FORMAT),
        classes=np.array(refit.classes),
        rows=refit.rows,
        bias=refit.bias,
        provenance=np.array(json.dumps(refit.provenance, ensure_ascii=False)),
    )
    path.write_bytes(buffer.getvalue())


def _parse(data: bytes) -> Refit:
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(loaded, NpzFile) or set(loaded.files) != set(ARRAYS):
        raise ValueError(f"it must hold the arrays {', '.join(ARRAYS)}")
    with loaded:
        held = {name: loaded[name] for name in ARRAYS}
    if str(held["format"]) != FORMAT:
        raise ValueError(f"its format is {str(held['format'])!r}, not {FORMAT!r}")
    provenance = json.loads(str(held["provenance"]))
    if not isinstance(provenance, dict):
        raise ValueError("its provenance is not a JSON object")
    classes = tuple(str(name) for name in held["classes"].ravel())
    return Refit(classes=classes, rows=held["rows"], bias=held["bias"], provenance=provenance)
