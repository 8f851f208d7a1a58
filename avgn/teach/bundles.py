"""From a bundle and other class tokens to a new bundle: every precision that it holds, verified before it is kept.

Legend: B batch, K classes, D width of features.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, BundleInfo, Thresholds, Variant, file_sha256, graph_facts, write_bundle_info
from avgn.runtime.contract import HALVES, PRECISIONS, TensorSpec
from avgn.runtime.engines import load_engine
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.outputs import new_folder
from avgn.teach.surgery import AudioGraph, ImageGraph, NoTokensError
from avgn.teach.tokens import Token

Say = Callable[[str], None]

# classes that stay may move by the order in which float32 is summed up; in parts of the largest value where that
# exceeds 1
MOST_MOVED = 1e-5
# half-precision products are summed up in other orders, too
MOST_MOVED_HALF = 2e-2
# what `Variant.engine` says of the graphs that can be changed; the others are machine code
ONNX = "onnxruntime"
PROBES = 3
# measures of the encoders' precision, which stays what it was
LASTING = ("float_share", "relative_error", "calibration_percentile", "largest_activation")


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A bundle's classes as numbers, and how they are read."""

    bundle: Bundle
    tokens: tuple[Token, ...]

    @property
    def exact(self) -> Variant:
        """The variant whose features are the most exact."""
        return _graphs_of(self.bundle)[0]


def read_tokens(bundle: Bundle) -> Taught:
    """Read the class tokens of a bundle. Raises InputError, with the reason, for one that can't be taught."""
    variants = _graphs_of(bundle)
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


def write_taught(
    source: Taught,
    tokens: Sequence[Token],
    target: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
    say: Say = lambda message: None,
) -> Bundle:
    """Write a bundle of these classes, verified; it appears whole or not at all.

    `provenance` is added to the bundle's own. Raises InputError for a folder that can't be written, FailureError where
    a class that stays would be heard or seen otherwise than before, or a new one otherwise than its rows say.
    """
    bundle = source.bundle
    check_target(bundle, target, overwrite)
    info = taught_info(bundle.info, tokens, provenance)
    with new_folder(target, "bundle", overwrite=overwrite) as folder:
        variants: list[Variant] = []
        for variant in _graphs_of(bundle):
            say(f"{variant.precision}: writing the graphs")
            made = _write_variant(bundle, variant, info, tokens, folder)
            write_bundle_info(folder, replace(info, variants=(made,)))
            say(f"{variant.precision}: comparing them with the rows, and with what they were")
            measured = verify(source, variant, Bundle.load(folder), tokens)
            kept = {
                key: value for key, value in (variant.verified or {}).items() if key.endswith(LASTING)
            }
            variants.append(replace(made, verified=kept | measured))
        for variant in bundle.info.variants:
            if variant.engine != ONNX:
                say(
                    f"{variant.precision} for {variant.engine} is left out: machine code can't be taught, its ONNX "
                    "graphs run everywhere"
                )
        write_bundle_info(folder, replace(info, variants=tuple(variants)))
    return Bundle.load(target)


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
        if not (path / "bundle.json").is_file():
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


def verify(source: Taught, variant: Variant, made: Bundle, tokens: Sequence[Token]) -> dict[str, float]:
    """Measure a new variant: how far classes that stay moved, and new ones are from what NumPy makes of their rows.

    Raises FailureError where that is more than the order of sums explains.
    """
    name = engine_here()
    old = load_engine(source.bundle, variant, name, threads=1)
    new = load_engine(made, made.info.variants[0], name, threads=1)
    before, after = (outputs(engine) for engine in (old, new))
    places = [(k, token.origin) for k, token in enumerate(tokens) if token.origin is not None]
    allowed = MOST_MOVED_HALF if variant.precision == "fp16" else MOST_MOVED
    measured = {}
    for key, value in after.items():
        if not np.isfinite(value).all():
            raise FailureError(f"the taught {variant.precision} graphs give {key} that are not finite: nothing was written")
        moved = 0.0
        if places:
            stays, was = value[:, [k for k, _ in places]], before[key][:, [origin for _, origin in places]]
            moved = float(np.abs(stays - was).max() / max(1.0, float(np.abs(was).max())))
        if not moved <= allowed:
            raise FailureError(
                f"the taught {variant.precision} graphs change classes that shall stay (max_abs_{key} is {moved:.3g}, "
                f"allowed is {allowed:.0e}): nothing was written"
            )
        measured[f"max_abs_kept_{key}"] = moved
    return measured


def outputs(engine: Engine) -> dict[str, Floats]:
    """Both halves of an engine on pictures and sounds that fit it, the same every time."""
    waveform, image = probes(engine.info)
    heard = engine.run_audio(waveform)
    # the maps of both bundles are of the same sounds: classes that stay have the same sources
    return heard | engine.run_image(image, heard["sources"])


def probes(info: BundleInfo) -> tuple[Floats, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Sounds [B, T] and pictures [B, H, W, 3] of coarse and fine structure."""
    random = np.random.default_rng(7)
    time = np.arange(info.window_samples) / info.sample_rate
    sounds = [np.zeros_like(time)]
    for n in range(1, PROBES):
        tones = sum(np.sin(2 * np.pi * f * time * (1 + 0.01 * n * time)) / 4 for f in 110 * 2 ** random.uniform(0, 5, 4))
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
    from avgn.runtime.engines import ENGINES
    from avgn.runtime.errors import MissingExtraError

    for name in ("onnxruntime", "openvino"):
        if not ENGINES[name].missing():
            return name
    raise MissingExtraError("onnxruntime", "cpu")


def _graphs_of(bundle: Bundle) -> list[Variant]:
    """The variants that can be changed, the most exact one first."""
    found = [variant for variant in bundle.info.variants if variant.engine == ONNX]
    return sorted(found, key=lambda variant: PRECISIONS.index(variant.precision))


def _write_variant(
    bundle: Bundle, variant: Variant, info: BundleInfo, tokens: Sequence[Token], folder: Path
) -> Variant:
    files = {half: folder / Path(getattr(variant, half)).name for half in HALVES}
    facts = graph_facts(info)
    for half, kind in (("audio", AudioGraph), ("image", ImageGraph)):
        graph = kind(bundle.graph(variant, half))
        graph.write(tokens)
        graph.save(files[half], facts)
    count = len(tokens)
    return replace(
        variant,
        audio=files["audio"].name,
        image=files["image"].name,
        sha256={half: file_sha256(file) for half, file in files.items()},
        inputs={half: tuple(_sized(spec, count) for spec in specs) for half, specs in variant.inputs.items()},
        outputs={half: tuple(_sized(spec, count) for spec in specs) for half, specs in variant.outputs.items()},
        verified=None,
    )


def _sized(spec: TensorSpec, count: int) -> TensorSpec:
    if spec.name not in ("sources", "audio_prob", "maps", "visual_prob"):
        return spec
    return replace(spec, shape=(spec.shape[0], count, *spec.shape[2:]))
