"""Protocol `video`: the streaming localizer over video files, compared frame by frame with the truth.

F frames of one video, K classes. "near change" frames lie within one window length after a change of the truth,
"steady" frames are the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avgn.evaluation.inference import Progress, check_classes
from avgn.evaluation.map_kinds import why_no_classes
from avgn.evaluation.statistics import Ratio, bootstrap_intervals, ratio_value
from avgn.evaluation.video_truth import VideoTruth
from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest

Stream = Callable[[Path], Iterable[Any]]

GROUPS = ("all", "near_change", "steady")
NO_VIDEO = "no video file"
UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Track:
    """Holds what the localizer said about one video: times [F] and frame numbers [F]; heard and shown (on screen)
    [F, K] bool; peaks [F, K, 2] (x, y, NaN where not shown)."""

    times: Array
    frames: Array
    heard: Array
    shown: Array
    peaks: Array

    @property
    def step(self) -> float:
        """Return the median time from frame to frame in seconds."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0


def evaluate_video(
    engine: Engine,
    manifest: Manifest,
    *,
    stream: Stream | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the streaming localizer on every item with a video file.

    stream: path -> iterable of results (default: the runtime's Localizer over `engine`, in file mode).
    "metrics" are over all frames, "near_change" and "steady" over those groups: precision, recall, F1 of sources on
    screen; recall of sounding visible sources; peak in box and in mask (of recalled sources, percent);
    onset and release errors in seconds; false sources per minute (a false source is a run of frames that show a
    class and never meet its truth); silent frames with no source (percent). "floor" is a peak at the centre.
    Raises InputError when no item has a video, for unreadable files (a counted skip with `skip_bad`), and for
    other classes than the model's.
    """
    check_classes(engine.info, manifest)
    if reason := why_no_classes(engine.info):
        raise InputError(f"{reason}: protocol video needs classes")
    columns, videos, missed, skipped = _score_items(
        manifest, stream or _localizer(engine), engine.info, skip_bad, progress
    )
    if not columns:
        raise InputError(f"{manifest.path} has no readable item with a video_file: protocol video needs video truth")
    ratios = {group: _ratios([column[group] for column in columns]) for group in GROUPS}
    floor = {name: ratios["all"].pop(f"floor {name}") for name in ("peak in box", "peak in mask")}
    values = {
        group: {name: ratio_value(r) for name, r in of.items() if not name.startswith("floor ")}
        for group, of in ratios.items()
    }
    return {
        "protocol": "video",
        "classes": "predicted",
        "metrics": values["all"],
        "ci95": bootstrap_intervals(ratios["all"], np.array(videos), samples=bootstrap, seed=seed) if bootstrap else {},
        "near_change": values["near_change"],
        "steady": values["steady"],
        "floor": {name: ratio_value(ratio) for name, ratio in floor.items()},
        "ceiling": {"peak in box": 100.0, "peak in mask": 100.0},
        "counts": {"videos": len(columns), "missed intervals": missed},
        "items": len(columns),
        "skipped": dict(skipped),
    }


def _score_items(
    manifest: Manifest, run: Stream, info: BundleInfo, skip_bad: bool, progress: Progress | None
) -> tuple[list[dict[str, dict[str, tuple[float, float]]]], list[str], int, Counter[str]]:
    """Score every video: (the scores of each, its video id, missed intervals of all, skipped items by reason)."""
    columns: list[dict[str, dict[str, tuple[float, float]]]] = []
    videos: list[str] = []
    missed = 0
    skipped: Counter[str] = Counter()
    for done, item in enumerate(manifest.items, start=1):
        if item.video_file is None:
            skipped[NO_VIDEO] += 1
        else:
            try:
                truth = VideoTruth(item, info.classes)
                track = read_track(run(item.video_file), info.classes)
            except InputError as error:
                if not skip_bad:
                    raise InputError(f"item {item.id!r}: {error}") from None
                skipped[UNREADABLE] += 1
            else:
                scores, lost = score_video(track, truth, info.window_seconds)
                columns.append(scores)
                videos.append(item.video)
                missed += lost
        if progress:
            progress(done, len(manifest.items))
    return columns, videos, missed, skipped


def read_track(results: Iterable[Any], classes: tuple[str, ...]) -> Track:
    """Gather a stream's results; labels that are no class ("unknown") don't count as sources."""
    index = {name: k for k, name in enumerate(classes)}
    times: list[float] = []
    frames: list[int] = []
    said: list[list[Any]] = []
    for result in results:
        times.append(float(result.time))
        frames.append(int(result.frame))
        said.append([source for source in result.sources if source.label in index])
    heard = np.zeros((len(times), len(classes)), dtype=bool)
    shown = np.zeros_like(heard)
    peaks = np.full((len(times), len(classes), 2), np.nan)
    for f, sources in enumerate(said):
        for source in sources:
            k = index[source.label]
            heard[f, k] = True
            if source.on_screen:
                shown[f, k] = True
                if source.peak is not None:
                    peaks[f, k] = source.peak
    return Track(
        times=np.array(times, dtype=np.float64),
        frames=np.array(frames, dtype=np.int64),
        heard=heard,
        shown=shown,
        peaks=peaks,
    )


def near_change(times: Array, changes: Array, window: float) -> Array:
    """Return [F] bool: at most `window` seconds after a change (the moment of the change included)."""
    since = times[:, None] - changes[None]
    return np.asarray(((since >= 0) & (since < window)).any(axis=1)) if changes.size else np.zeros(len(times), bool)


def score_video(
    track: Track, truth: VideoTruth, window: float
) -> tuple[dict[str, dict[str, tuple[float, float]]], int]:
    """Score one video: ({group: {metric: (numerator, denominator)}}, number of intervals that were never heard)."""
    near: Array = near_change(track.times, truth.changes(track.times, track.frames), window)
    groups: dict[str, Array] = {"all": np.ones(len(near), dtype=bool), "near_change": near, "steady": ~near}
    present = truth.present(track.times, track.frames)
    silent: Array = np.logical_not(truth.sounding(track.times).any(axis=1))
    quiet = silent & np.logical_not(track.heard.any(axis=1))
    false_starts = _false_starts(track.shown, present)
    hits = _peak_hits(track, truth, present)
    onsets, releases, missed = _edge_errors(track, truth)
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for name, chosen in groups.items():
        true = float((track.shown & present)[chosen].sum())
        said, there = float(track.shown[chosen].sum()), float(present[chosen].sum())
        scores[name] = {
            "precision": (true, said),
            "recall": (true, there),
            "F1": (2 * true, said + there),
            "false sources per minute": (float(false_starts[chosen].sum()), chosen.sum() * track.step / 60),
            "silent frames with no source": (float(quiet[chosen].sum()), float(silent[chosen].sum())),
            **{key: (float(hit[chosen].sum()), float(of[chosen].sum())) for key, (hit, of) in hits.items()},
        }
    for key, errors in (("onset", onsets), ("release", releases)):
        scores["all"][f"{key} error (s)"] = (float(np.abs(errors).sum()), len(errors))
        scores["all"][f"{key} bias (s)"] = (float(errors.sum()), len(errors))
    return scores, missed


def _localizer(engine: Engine) -> Stream:
    from avgn.runtime.localizer import Localizer

    localizer = Localizer(engine)
    return lambda path: localizer.stream(path)


def _runs(active: Array) -> list[tuple[int, int]]:
    """Return (first, after last) of every run of true values in [F]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _false_starts(shown: Array, present: Array) -> Array:
    """Return [F] how many false sources start at each frame."""
    starts = np.zeros(len(shown))
    for k in range(shown.shape[1]):
        for first, last in _runs(shown[:, k]):
            if not present[first:last, k].any():
                starts[first] += 1
    return starts


def _peak_hits(track: Track, truth: VideoTruth, present: Array) -> dict[str, tuple[Array, Array]]:
    """Return {metric: (hits [F], cases [F])}: peaks of recalled sources, and the centre for every true source."""
    counts = {
        name: (np.zeros(len(track.times)), np.zeros(len(track.times)))
        for name in ("peak in box", "peak in mask", "floor peak in box", "floor peak in mask")
    }
    for f, k in np.argwhere(present):
        when, frame = float(track.times[f]), int(track.frames[f])
        peaks = [("floor ", (0.5, 0.5))]
        if track.shown[f, k]:
            peaks.append(("", (float(track.peaks[f, k, 0]), float(track.peaks[f, k, 1]))))
        for prefix, peak in peaks:
            usable = not np.isnan(peak).any()
            hit = {
                "peak in box": usable and truth.hits_box(int(k), when, frame, peak),
                "peak in mask": truth.hits_mask(int(k), when, frame, peak if usable else (0.0, 0.0)),
            }
            for name, value in hit.items():
                if value is not None:
                    counts[prefix + name][0][f] += bool(value and usable)
                    counts[prefix + name][1][f] += 1
    return counts


def _edge_errors(track: Track, truth: VideoTruth) -> tuple[Array, Array, int]:
    """Return (onset errors, release errors) in seconds, late is positive, and the number of intervals never heard.

    Each sounding interval is compared with the run of its class that overlaps it most. A release at or after the
    video's last frame can't be seen and is left out.
    """
    if not len(track.times):
        return np.zeros(0), np.zeros(0), 0
    end = float(track.times[-1]) + track.step
    onsets: list[float] = []
    releases: list[float] = []
    missed = 0
    for k, start, stop in truth.intervals(end):
        runs = [(track.times[a], track.times[b - 1] + track.step) for a, b in _runs(track.heard[:, k])]
        overlaps = [min(stop, last) - max(start, first) for first, last in runs]
        if not overlaps or max(overlaps) <= 0:
            missed += 1
            continue
        first, last = runs[int(np.argmax(overlaps))]
        onsets.append(first - start)
        if stop < end - track.step / 2:
            releases.append(last - stop)
    return np.array(onsets), np.array(releases), missed


def _ratios(columns: list[dict[str, tuple[float, float]]]) -> dict[str, Ratio]:
    ratios: dict[str, Ratio] = {}
    for name in columns[0]:
        pairs = np.array([column[name] for column in columns], dtype=np.float64)
        scale = 1.0 if name.endswith("(s)") or name.endswith("per minute") else 100.0
        ratios[name] = Ratio(numerator=pairs[:, 0], denominator=pairs[:, 1], scale=scale)
    return ratios
