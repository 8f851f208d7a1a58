"""A bundle whose classes are rows of classifiers: what it knows as numbers, and why another one can't be taught.

Legend: B batch, T samples, H x W pixels, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.bundle import BUNDLE_FILE, Bundle, BundleInfo, Thresholds, Variant
from avgn.runtime.contract import PRECISIONS
from avgn.runtime.engines import ENGINES
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.teach.audio_graph import AudioGraph
from avgn.teach.image_graph import ImageGraph
from avgn.teach.token_graph import NoTokensError
from avgn.teach.tokens import Token

# what `Variant.engine` says of the graphs that can be changed; the others are machine code
ONNX = "onnxruntime"
PROBES = 3


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A bundle's classes as numbers, and how they are read."""

    bundle: Bundle
    tokens: tuple[Token, ...]

    @property
    def exact(self) -> Variant:
        """The variant whose features are the most exact."""
        return graphs_of(self.bundle)[0]


def read_tokens(bundle: Bundle) -> Taught:
    """Read the class tokens of a bundle. Raises InputError, with the reason, for one that can't be taught."""
    variants = graphs_of(bundle)
    name = bundle.info.model["name"]
    if bundle.info.patches is None or bundle.info.joint is None:
        raise cannot(bundle, f"the classes of {name} are not rows of a classifier, training made them")
    if not variants:
        held = ", ".join(sorted({variant.engine for variant in bundle.info.variants}))
        raise cannot(bundle, f"it holds machine code only ({held}), and rows are changed in ONNX graphs")
    try:
        heard = AudioGraph(bundle.graph(variants[0], "audio")).read()
        seen = ImageGraph(bundle.graph(variants[0], "image")).read()
    except NoTokensError as error:
        raise cannot(bundle, str(error)) from None
    labels = bundle.info.classes
    if not len(heard) == len(seen) == len(labels):
        raise cannot(bundle, f"its graphs have {len(heard)} and {len(seen)} classes, its bundle.json {len(labels)}")
    tokens = tuple(
        Token(label=label, heard=heard[k], seen=seen[k], threshold=bundle.info.joint.thresholds[k], origin=k)
        for k, label in enumerate(labels)
    )
    return Taught(bundle=bundle, tokens=tokens)


def cannot(bundle: Bundle, reason: str) -> InputError:
    return InputError(
        f"bundle {bundle.path} can't be taught: {reason}; take world, or a bundle made from it or from a checkpoint of "
        "avgn train --preset avgn-world"
    )


def check_target(bundle: Bundle, target: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise InputError, before any work, for a folder that holds something which must stay."""
    path = Path(target)
    if path.exists() and path.resolve() == bundle.path.resolve():
        raise InputError(f"{path} is the bundle that is read: give another folder for the new one")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give the path of a new folder")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise InputError(f"bundle {path} exists already: choose another folder or pass --overwrite")
        if not (path / BUNDLE_FILE).is_file():
            raise InputError(f"{path} is no bundle and is not overwritten: choose another folder")


def taught_info(info: BundleInfo, tokens: Sequence[Token], provenance: Mapping[str, Any]) -> BundleInfo:
    """The facts of the new bundle, without its variants."""
    assert info.joint is not None
    labels = tuple(token.label for token in tokens)

    def each(values: Sequence[float], other: float) -> tuple[float, ...]:
        return tuple(other if token.origin is None else values[token.origin] for token in tokens)

    model = dict(info.model)
    if isinstance(config := model.get("config"), dict):
        model["config"] = config | {"classes": list(labels)}
    return replace(
        info,
        model=model,
        classes=labels,
        thresholds=Thresholds(audio=each(info.thresholds.audio, 0.5), visual=each(info.thresholds.visual, 0.5)),
        joint=replace(info.joint, thresholds=tuple(token.threshold for token in tokens)),
        provenance=info.provenance | dict(provenance),
        variants=(),
    )


def probes(info: BundleInfo) -> tuple[Floats, Pixels]:
    """Sounds [B, T] and pictures [B, H, W, 3] of coarse and fine structure."""
    random = np.random.default_rng(7)
    time = np.arange(info.window_samples) / info.sample_rate
    sounds = [np.zeros_like(time)]
    for n in range(1, PROBES):
        tones = sum(
            np.sin(2 * np.pi * f * time * (1 + 0.01 * n * time)) / 4 for f in 110 * 2 ** random.uniform(0, 5, 4)
        )
        sounds.append(0.3 * tones + 0.02 * random.standard_normal(len(time)))
    height, width = info.image_size
    pictures = []
    for n in range(PROBES):
        step = 32 // 2**n
        coarse = random.integers(0, 256, (-(-height // step), -(-width // step), 3), np.uint8)
        pictures.append(coarse.repeat(step, 0).repeat(step, 1)[:height, :width])
    return np.stack(sounds).astype(np.float32), np.stack(pictures)


def engine_here() -> str:
    """The engine that is installed: ONNX Runtime, or OpenVINO in its place. Raises MissingExtraError for neither."""
    for name in ("onnxruntime", "openvino"):
        if not ENGINES[name].missing():
            return name
    raise MissingExtraError("onnxruntime", "cpu")


def graphs_of(bundle: Bundle) -> list[Variant]:
    """The variants that can be changed, the most exact one first."""
    found = [variant for variant in bundle.info.variants if variant.engine == ONNX]
    return sorted(found, key=lambda variant: PRECISIONS.index(variant.precision))
