"""Many videos one after the other: a bad one is named and the rest go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.file_run import localize_file
from avgn.runtime.folders import PassedOver, find_videos
from avgn.runtime.localizer import Localizer
from avgn.runtime.summary import Summary

OVERLAY = ".overlay.mp4"
SHOWN = 5

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A video and what its outputs are called, without a suffix and relative to the folders of outputs."""

    video: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one video: its summary, or the sentence that says what is wrong with it."""

    job: Job
    summary: Summary | None = None
    error: str | None = None


def list_jobs(given: Sequence[str | os.PathLike[str]], outputs: Iterable[Path], report: Report) -> list[Job]:
    """Return the videos of files and folders, each once, with a name of its own for the outputs.

    Folders are searched to their ends; hidden and system files, overlays of an earlier run and what is no video are
    told to `report`. Raises InputError where there is no video at all.
    """
    passed = PassedOver()
    found: list[tuple[Path, Path]] = []
    skip = [folder for folder in outputs if not any(folder.resolve() == Path(path).resolve() for path in given)]
    for path in map(Path, given):
        if path.is_dir():
            found += [(video, video.relative_to(path)) for video in find_videos(path, passed, skip=skip)]
        else:
            found.append((path, Path(path.name)))
    earlier = [video for video, _ in found if video.name.endswith(OVERLAY)]
    found = [
        (video, name) for video, name in found if not video.name.endswith(OVERLAY) or str(video) in map(str, given)
    ]
    for names, what in (
        (passed.hidden, "hidden or system files"),
        (passed.other, "files that are no videos"),
        (list(map(str, earlier)), "overlays of an earlier run"),
        (passed.unreadable, "folders that can't be read"),
    ):
        if names:
            report(f"passed over: {len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if names[SHOWN:] else ''})")
    if not found:
        raise InputError(f"{', '.join(map(str, given))} holds no video: give a folder with videos below it, or files")
    return _named(found)


def _named(found: Sequence[tuple[Path, Path]]) -> list[Job]:
    """Return names without suffixes; with them where two videos differ in nothing else, counted where that is not
    enough."""
    distinct = {video.resolve(): (video, name) for video, name in reversed(found)}
    listed = sorted(distinct.values(), key=lambda pair: found.index(pair))
    stems = [_key(name.with_suffix("")) for _, name in listed]
    jobs: list[Job] = []
    taken: set[str] = set()
    for (video, name), stem in zip(listed, stems, strict=True):
        wanted = str(name if stems.count(stem) > 1 else name.with_suffix(""))
        unique, count = wanted, 1
        while _key(Path(unique)) in taken:
            count += 1
            unique = f"{wanted}-{count}"
        taken.add(_key(Path(unique)))
        jobs.append(Job(video=video, name=unique))
    return jobs


def _key(name: Path) -> str:
    # many file systems don't tell cases apart
    return str(name).casefold()


def localize_all(
    localizer: Localizer,
    jobs: Sequence[Job],
    *,
    overlays: Path | None = None,
    lines: Path | None = None,
    events: Path | None = None,
    report: Report = lambda message: None,
    **options: Any,
) -> list[Outcome]:
    """Localize every video, with its overlay, JSON lines and events below the folders that are given.

    `options` go to `localize_file`. What can't be used goes to `report` and becomes an outcome with an error. Raises
    InputError, before anything is localized, for folders that can't be made.
    """
    for folder in (overlays, lines, events):
        if folder is not None:
            _make(folder)
    outcomes = []
    for job in jobs:
        paths: dict[str, Any] = {
            "output": _place(overlays, job.name + OVERLAY),
            "json_path": _place(lines, job.name + ".jsonl"),
            "csv_path": _place(events, job.name + ".csv"),
        }
        try:
            for path in paths.values():
                if path is not None:
                    _make(path.parent)
            outcome = Outcome(job=job, summary=localize_file(localizer, job.video, **paths, **options))
        except (InputError, FailureError) as error:
            outcome = Outcome(job=job, error=str(error))
        report(describe(outcome))
        outcomes.append(outcome)
    return outcomes


def describe(outcome: Outcome) -> str:
    """One line on what became of a video."""
    if outcome.summary is None:
        return f"{outcome.job.video}: not localized: {outcome.error}"
    labels = dict.fromkeys(
        label for second in outcome.summary.table for label in (*second.on_screen, *second.off_screen)
    )
    found = ", ".join(labels) or "no source"
    warned = "".join(f"; {warning}" for warning in outcome.summary.warnings)
    return f"{outcome.job.video}: {outcome.summary.frames} frames, {outcome.summary.seconds:.2f} s: {found}{warned}"


def _place(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} can't be made ({error.strerror}): choose another --output") from None
