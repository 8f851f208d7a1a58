"""The bundle: a folder with bundle.json and the two graphs of a localizer, checked on load.

Shapes: K maps (one per entry of `classes`), H x W the graphs' image size, h x w the map grid.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath, PureWindowsPath

from avgn.runtime.bundle_schema import BundleInfo, Thresholds, Variant, from_json, graph_facts, to_json
from avgn.runtime.contract import HALVES, TensorSpec
from avgn.runtime.documents import LARGEST
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.onnx_check import check_onnx
from avgn.runtime.regular import open_regular
from avgn.runtime.texts import read_text

__all__ = [
    "BUNDLE_FILE",
    "Bundle",
    "BundleInfo",
    "TensorSpec",
    "Thresholds",
    "Variant",
    "file_sha256",
    "from_json",
    "graph_facts",
    "resolve_bundle_path",
    "to_json",
    "untrained_warning",
    "write_bundle_info",
]

BUNDLE_FILE = "bundle.json"
# steps below which a training was a try, not a training
FEW_STEPS = 100
# inside the package: real things, and drawn scenes for tests and benchmarks
DEFAULT = "world"
SHIPPED = (DEFAULT, "tiny")
# bytes of one graph, all of which are hashed; our largest have 100 MB
LARGEST_GRAPH = 1 << 30
# what `Variant.engine` says of ONNX graphs; other engines' files are their libraries' own formats
ONNX_ENGINES = ("onnxruntime",)


def untrained_warning(info: BundleInfo, name: str) -> str | None:
    """Return what to say of a model whose weights are random or nearly so; None where that is not known of it."""
    steps = info.provenance.get("training")
    if type(steps) is not int or steps >= FEW_STEPS:
        return None
    what = "was never trained" if steps == 0 else f"was trained for {steps} steps only"
    return f"{name} {what}: what it finds means nothing; train it with avgn train, or use the name {DEFAULT}"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A folder whose bundle.json and graph files were checked."""

    path: Path
    info: BundleInfo

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Bundle:
        """Read and verify a bundle; the names "world" and "tiny" mean those shipped inside the package.

        Only what bundle.json lists is read. Raises InputError for a missing or malformed bundle.json, an unknown
        version, a graph that is missing, has another hash, lies outside of the folder, or is ONNX but not a
        self-contained graph of standard operators (`onnx_check`).
        """
        path = resolve_bundle_path(folder)
        info_file = path / BUNDLE_FILE
        info = from_json(
            read_text(info_file, "bundle", "give a folder made by avgn export", most=LARGEST), str(info_file)
        )
        hashes: dict[str, str] = {}
        for variant in info.variants:
            for half in HALVES:
                _check_graph(path, getattr(variant, half), variant.sha256[half], hashes)
                if variant.engine in ONNX_ENGINES:
                    check_onnx(path / getattr(variant, half), f"graph {getattr(variant, half)!r} of bundle {path}")
        return cls(path=path, info=info)

    def graph(self, variant: Variant, half: str) -> Path:
        """Return the file of one half ("audio" or "image") of a variant."""
        name: str = getattr(variant, half)
        return self.path / name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    @property
    def sample_rate(self) -> int:
        return self.info.sample_rate

    @property
    def window_seconds(self) -> float:
        return self.info.window_seconds

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.info.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) in cells."""
        return self.info.grid

    @property
    def has_presence(self) -> bool:
        return self.info.has_presence

    @property
    def thresholds(self) -> Thresholds:
        return self.info.thresholds

    @property
    def variants(self) -> tuple[Variant, ...]:
        return self.info.variants


def resolve_bundle_path(folder: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle given by path or by a shipped name; raises InputError when there is none."""
    if isinstance(folder, str) and folder in SHIPPED:
        path = Path(str(files("avgn"))) / "models" / folder
        if not path.is_dir():
            raise InputError(f"bundle {folder!r} is not part of this installation: give the path of a bundle folder")
        return path
    path = Path(folder)
    try:
        if path.is_dir():
            return path
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if exists:
        raise InputError(f"bundle {path} is not a folder: give the folder that holds {BUNDLE_FILE}")
    raise InputError(f"bundle {path} does not exist: give a folder made by avgn export, or the name {DEFAULT}")


def write_bundle_info(folder: str | os.PathLike[str], info: BundleInfo) -> Path:
    """Write bundle.json into an existing folder; it appears whole or not at all.

    Raises InputError when `info` breaks a rule of the schema or the file can't be written.
    """
    text = to_json(info)
    path = Path(folder) / BUNDLE_FILE
    from_json(text, str(path))
    return write_whole(path, text)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_graph(folder: Path, name: str, expected: str, hashes: dict[str, str]) -> None:
    """Raise InputError unless a graph lies in the folder and is what was exported; `hashes` by name are found once."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise InputError(f"{folder / BUNDLE_FILE}: graph path {name!r} is absolute: a bundle names files in its folder")
    if ".." in PurePosixPath(name).parts or "\\" in name:
        raise InputError(f"{folder / BUNDLE_FILE}: graph path {name!r} leaves the folder: export the bundle again")
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise InputError(f"graph {name!r} of {folder} is a link that leaves the folder: copy the file into it")
        if not file.is_file():
            raise InputError(f"graph {name!r} of bundle {folder} is missing: copy the whole folder or export again")
        if (size := file.stat().st_size) > LARGEST_GRAPH:
            raise InputError(
                f"graph {name!r} of bundle {folder} has {size} bytes, at most {LARGEST_GRAPH} are read: export it again"
            )
        found = hashes[name] = hashes.get(name) or file_sha256(file)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"graph {name!r} of bundle {folder} can't be read ({error}): export the bundle again"
        ) from None
    if found != expected:
        raise InputError(
            f"graph {name!r} of bundle {folder} has sha256 {found[:12]}..., bundle.json says {expected[:12]}...: "
            "it was changed or cut off, so copy or export the bundle again"
        )
