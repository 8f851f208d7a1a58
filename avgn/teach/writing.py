"""Writes a bundle of other classes: every precision that the old one holds, verified before it is kept.

Legend: B batch, N patches, P cells, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import Bundle, BundleInfo, Variant, file_sha256, graph_facts, write_bundle_info
from avgn.runtime.contract import HALVES, TensorSpec
from avgn.runtime.engines import load_engine
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import FailureError
from avgn.runtime.outputs import new_folder
from avgn.runtime.patches import cut_patches
from avgn.teach.audio_graph import AudioGraph
from avgn.teach.bundles import ONNX, Taught, check_target, engine_here, graphs_of, probes, taught_info
from avgn.teach.features import Encoders
from avgn.teach.image_graph import ImageGraph
from avgn.teach.judging import Judge
from avgn.teach.tokens import Token

Say = Callable[[str], None]

# classes that stay may move by the order in which float32 is summed up; in parts of the largest value where that
# exceeds 1
MOST_MOVED = 1e-5
# new ones, against NumPy's products of the same features
MOST_OFF = 1e-3
# half-precision products keep three digits
MOST_HALF = 3e-2
# measures of the encoders' precision, which stays what it was
LASTING = ("float_share", "relative_error", "calibration_percentile", "largest_activation")


def write_taught(
    source: Taught,
    tokens: Sequence[Token],
    target: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
    before: Before | None = None,
    say: Say = lambda message: None,
) -> Bundle:
    """Write a bundle of these classes, verified; it appears whole or not at all.

    `provenance` is added to the bundle's own; `before` is what was measured of the old bundle, where it is taught again
    and again. Raises InputError for a folder that can't be written, FailureError where
    a class that stays would be heard or seen otherwise than before, or a new one otherwise than its rows say.
    """
    bundle = source.bundle
    check_target(bundle, target, overwrite)
    before = before or Before(source)
    info = taught_info(bundle.info, tokens, provenance)
    with new_folder(target, "bundle", overwrite=overwrite) as folder:
        variants: list[Variant] = []
        for variant in graphs_of(bundle):
            say(f"{variant.precision}: writing the graphs")
            made = _write_variant(bundle, variant, info, tokens, folder)
            write_bundle_info(folder, replace(info, variants=(made,)))
            say(f"{variant.precision}: comparing them with the rows, and with what they were")
            measured = verify(before, variant, Bundle.load(folder), tokens)
            kept = {key: value for key, value in (variant.verified or {}).items() if key.endswith(LASTING)}
            variants.append(replace(made, verified=kept | measured))
        for variant in bundle.info.variants:
            if variant.engine != ONNX:
                say(
                    f"{variant.precision} for {variant.engine} is left out: machine code can't be taught, its ONNX "
                    "graphs run everywhere"
                )
        write_bundle_info(folder, replace(info, variants=tuple(variants)))
    return Bundle.load(target)


class Before:
    """The old bundle's encoders and answers to the probes, by precision; each is computed when it is first needed."""

    def __init__(self, source: Taught) -> None:
        self.source = source
        self._encoders: dict[str, Encoders] = {}
        self._outputs: dict[str, dict[str, Floats]] = {}

    def encoders(self, variant: Variant) -> Encoders:
        """The encoders of a variant."""
        if variant.precision not in self._encoders:
            self._encoders[variant.precision] = Encoders(self.source, variant)
        return self._encoders[variant.precision]

    def outputs(self, variant: Variant) -> dict[str, Floats]:
        """What a variant gives for the probes."""
        if variant.precision not in self._outputs:
            engine = load_engine(self.source.bundle, variant, engine_here(), threads=1)
            self._outputs[variant.precision] = outputs(engine)
        return self._outputs[variant.precision]


def verify(old: Before, variant: Variant, made: Bundle, tokens: Sequence[Token]) -> dict[str, float]:
    """Measure a new variant: how far classes that stay moved, and new ones are from what NumPy makes of their rows.

    Raises FailureError where that is more than the order of sums explains.
    """
    before = old.outputs(variant)
    after = outputs(load_engine(made, made.info.variants[0], engine_here(), threads=1))
    half = variant.precision == "fp16"
    places = [(k, token.origin) for k, token in enumerate(tokens) if token.origin is not None]
    fresh = [k for k, token in enumerate(tokens) if token.origin is None]
    measured = {}
    for key, value in after.items():
        if not np.isfinite(value).all():
            raise FailureError(
                f"the taught {variant.precision} graphs give {key} that are not finite: nothing was written"
            )
        if places:
            stays, was = value[:, [k for k, _ in places]], before[key][:, [origin for _, origin in places]]
            measured[f"max_abs_kept_{key}"] = _difference(stays, was)
    if fresh:
        # a hop of rounding in the encoders moves both alike, so the features are this precision's own
        expected = reference(old, variant, [tokens[k] for k in fresh], tokens)
        for key, rows in expected.items():
            measured[f"max_abs_taught_{key}"] = _difference(after[key][:, fresh], rows)
    for key, difference in measured.items():
        allowed = MOST_HALF if half else MOST_MOVED if "_kept_" in key else MOST_OFF
        if not difference <= allowed:
            raise FailureError(
                f"the taught {variant.precision} graphs differ from what they shall be ({key} is {difference:.3g}, "
                f"allowed is {allowed:.0e}): nothing was written"
            )
    return measured


def outputs(engine: Engine) -> dict[str, Floats]:
    """Both halves of an engine on pictures and sounds that fit it, the same every time."""
    waveform, image = probes(engine.info)
    heard = engine.run_audio(waveform)
    return heard | engine.run_image(image, heard["sources"])


def reference(old: Before, variant: Variant, fresh: Sequence[Token], tokens: Sequence[Token]) -> dict[str, Floats]:
    """What NumPy makes of new tokens on the probes: "sources" [B, K, 1] and "visual_prob" [B, K]."""
    source, encoders = old.source, old.encoders(variant)
    waveform, image = probes(source.bundle.info)
    noises = AudioGraph(source.bundle.graph(variant, "audio")).read_noises()
    judge = Judge(fresh, noises, source.bundle.info)
    heard = [judge.hear(encoders.hear(patches)) for patches in cut_patches(source.bundle.info, waveform)]
    seen = [judge.see(cells)[0] for cells in encoders.see(image)]
    seen_prob = 1 / (1 + np.exp(-np.clip(np.stack(seen), -80, 80)))
    expected = {"sources": np.stack(heard)[:, :, None].astype(np.float32)}
    if not any(token.by_face for token in fresh):
        expected["visual_prob"] = seen_prob.astype(np.float32)
    return expected


def _difference(found: Floats, expected: Floats) -> float:
    """The largest difference, in parts of the largest value where that exceeds 1."""
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


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
