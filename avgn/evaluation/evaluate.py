"""Evaluates a localizer on a manifest under named protocols, with classes given and predicted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from avgn.evaluation.canvas import CANVAS
from avgn.evaluation.choice import Choice, choose_protocols
from avgn.evaluation.common import find_common
from avgn.evaluation.images import Images
from avgn.evaluation.inference import CANVAS_INPUT, Predictions, Prior, Progress, predict
from avgn.evaluation.map_kinds import why_no_classes
from avgn.evaluation.protocols import CLASS_MODES, Protocol
from avgn.evaluation.results import Results
from avgn.evaluation.said import Said
from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest

Result = dict[str, Any]

log = logging.getLogger(__name__)

DEFAULT_PROTOCOLS = ("source-wise", "frame-wise", "adaptive")
MAX_GRID_CELLS = 224


def evaluate(
    engine: Engine,
    manifest: Manifest,
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    classes: Sequence[str] = CLASS_MODES,
    *,
    thresholds: tuple[Array, Array] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    skip_bad: bool = False,
    pair_input: str = CANVAS_INPUT,
    object_prior: Prior | None = None,
    dsol_share: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Score a model: one result per protocol and way to choose the classes.

    protocols: names, or "all" for those that suit manifest and model. thresholds: (audio [K], visual [K]) in place of
    the model's own. bootstrap: samples for the 95 % intervals, 0 for none. pair_input, object_prior: see `predict`;
    the prior serves protocol ezvsl. dsol_share: see `choose_protocols`. workers: threads that score, default one a
    core. `progress(done, total)` counts items, once when they are run and once when they are scored.
    Protocol "video" runs the streaming localizer over the manifest's video files.
    Returns dicts with "protocol", "classes", "metrics" (percent; "... per image" are counts), "ci95", "floor",
    "chance", "ceiling" (all three with the right classes), "by_size", "per_class", "per_video", "counts", "items"
    (images with a scored map), "images" (all that were run), "skipped" ({reason: count}) and "notes". Where two
    pictures of an item show one class, "same_class" holds the scores of these items apart. A protocol that "all"
    leaves out has a result without metrics, whose "skipped" says why. Of other classes than the model's the common
    ones are scored, which "notes" says.
    Raises InputError for unknown or unsuitable protocols, a manifest without any of the model's classes and unreadable
    files.
    """
    _check_modes(engine, classes)
    common = find_common(engine.info, manifest)
    manifest, thresholds, engine = common.manifest, common.of(thresholds), common.narrow(engine)
    choice = choose_protocols(protocols, manifest, classes, engine.info, dsol_share)
    resampling: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "skip_bad": skip_bad}
    results: list[Result] = []
    if choice.protocols:
        first, second = _halves_of(progress, len(manifest.items))
        prior = object_prior if any(p.alpha < 1 for p in choice.protocols) else None
        reading: dict[str, Any] = {"batch_size": batch_size, "skip_bad": skip_bad, "pair_input": pair_input}
        found = predict(engine, manifest, object_prior=prior, progress=first, **reading)
        scoring: dict[str, Any] = resampling | {"thresholds": thresholds, "workers": workers, "progress": second}
        results += score_predictions(engine, found, choice.protocols, classes, **scoring)
    if choice.video:
        from avgn.evaluation.video import evaluate_video

        results.append(evaluate_video(with_thresholds(engine, thresholds), manifest, progress=progress, **resampling))
    for result in results:
        result["notes"] = [*([common.note] if common.note else []), *result.get("notes", ())]
    return results + _left_out(choice, len(manifest.items))


def _halves_of(progress: Progress | None, items: int) -> tuple[Progress | None, Progress | None]:
    """Divide a progress over `items` into that of running them and that of scoring those that could be run."""
    if progress is None:
        return None, None
    total = 2 * items
    return (lambda done, _: progress(done, total)), (lambda done, kept: progress(total - kept + done, total))


def score_predictions(
    engine: Engine,
    predictions: Predictions,
    protocols: Sequence[Protocol],
    classes: Sequence[str] = CLASS_MODES,
    *,
    thresholds: tuple[Array, Array] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Score predictions that were made before: the results, and the parameters, are those of `evaluate`."""
    said = Said(engine, predictions, thresholds, needs_predicted="predicted" in classes)
    images = Images(predictions.items, said.classes, protocols, classes, said=said, skip_bad=skip_bad)
    kept, found, skipped = images.score(workers, progress)
    skipped.update(predictions.skipped)
    items = [predictions.items[n] for n in kept]
    table = Results(items, said.classes, found, said=said, kept=kept, skipped=skipped)
    results = []
    for protocol in protocols:
        notes = [*predictions.notes, *said.notes, *_notes(protocol, predictions.priors is not None)]
        for mode in classes:
            if mode in protocol.modes:
                results.append(table.result(protocol, mode, bootstrap, seed) | {"notes": notes})
    return results


def evaluate_bounds(
    manifest: Manifest,
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    *,
    grid: tuple[int, int] = CANVAS,
    skip_bad: bool = False,
    dsol_share: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Compute floors, chance and ceilings of a manifest without any model: no frame and no sound is read.

    grid: (h, w) of the maps that the ceilings are computed for, per picture; by default every pixel. The other
    parameters are those of `evaluate`.
    Returns the results of `evaluate` with empty "metrics". Raises InputError as it does.
    """
    if any(not 1 <= side <= MAX_GRID_CELLS for side in grid):
        raise InputError(f"the grid must be (h, w) from 1 to {MAX_GRID_CELLS}, got {grid}: a model's is 7,7 at 224x224")
    choice = choose_protocols(protocols, manifest, ("given",), None, dsol_share)
    if not manifest.items:
        raise InputError(f"{manifest.path} lists no items: there is nothing to evaluate")
    images = Images(manifest.items, manifest.classes, choice.protocols, ("given",), grid=grid, skip_bad=skip_bad)
    kept, found, skipped = images.score(workers, progress)
    items = [manifest.items[n] for n in kept]
    table = Results(items, manifest.classes, found, said=None, kept=kept, skipped=skipped)
    results = [table.bounds(protocol) | {"notes": _notes(protocol, True)} for protocol in choice.protocols]
    return results + _left_out(choice, len(manifest.items))


def _notes(protocol: Protocol, has_prior: bool) -> list[str]:
    notes = []
    if protocol.caution:
        log.warning("%s", protocol.caution)
        notes.append(protocol.caution)
    if protocol.alpha < 1:
        weight = (
            f"mixed in with weight {1 - protocol.alpha:g}" if has_prior else "no object prior was given: alpha is 1"
        )
        notes.append(f"object prior of protocol {protocol.name}: {weight}")
    return notes


def _left_out(choice: Choice, num_items: int) -> list[Result]:
    """Make results without metrics that say why a protocol was not scored."""
    return [
        {
            "protocol": name,
            "classes": "given",
            "metrics": {},
            "floor": {},
            "chance": {},
            "ceiling": {},
            "items": 0,
            "skipped": {reason: num_items},
        }
        for name, reason in choice.left_out.items()
    ]


class _Calibrated:
    """Wraps an engine with other thresholds than its bundle's."""

    def __init__(self, engine: Engine, thresholds: tuple[Array, Array]) -> None:
        audio, visual = (tuple(float(value) for value in values) for values in thresholds)
        self.name = engine.name
        self.info = replace(engine.info, thresholds=Thresholds(audio=audio, visual=visual))
        self.run_audio = engine.run_audio
        self.run_image = engine.run_image


def with_thresholds(engine: Engine, thresholds: tuple[Array, Array] | None) -> Engine:
    """Return the engine, with its thresholds replaced if others are given."""
    return engine if thresholds is None else _Calibrated(engine, thresholds)


def _check_modes(engine: Engine, classes: Sequence[str]) -> None:
    if not classes:
        raise InputError(f"classes must be named: choose from {', '.join(CLASS_MODES)}")
    for mode in classes:
        if mode not in CLASS_MODES:
            raise InputError(f"classes {mode!r} is not known: choose from {', '.join(CLASS_MODES)}")
    if "predicted" in classes and (reason := why_no_classes(engine.info)):
        raise InputError(f"{reason} and predicts no classes: use classes given")
