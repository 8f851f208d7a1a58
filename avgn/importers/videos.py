"""Imports folders of video files: frames and the sound around them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avgn.importers.base import DUPLICATE, Import, ImportOptions, class_list
from avgn.importers.cutting import CUT, Clip, Plan, cut_all, output_folder, pieces, stem_of
from avgn.importers.files import canonical, read_rows
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.folders import PassedOver, find_videos, is_clutter
from avgn.runtime.manifest import Item, Source, check_names
from avgn.runtime.regular import no_file
from avgn.runtime.texts import is_text

HIDDEN = "hidden or system files, passed over"
OTHER = "files that are no videos, passed over"
OUTSIDE = "videos outside of class folders, passed over"
NONE_INSIDE = "class folders without a video"
UNREADABLE = "folders that can't be read"


@dataclass(frozen=True, kw_only=True)
class Labelled(Clip):
    """Holds a video with its classes."""

    labels: tuple[str, ...]


def import_videos(options: ImportOptions) -> Import:
    """Import ROOT/<class>/**/<clip>.mp4, or a list (`labels`) of file, class[, class ...] with files below ROOT.

    Every 1 / fps seconds gives an item: the frame and `window` seconds of sound around it, in a folder beside the
    manifest. What is there from an earlier run is not cut again; what is no video or belongs to the system is noted.
    """
    report = Report()
    if not 0 < options.fps <= 60 or not 0.1 <= options.window <= 60:
        raise InputError(f"--fps must be in 0..60 and --window in 0.1..60, got {options.fps} and {options.window}")
    found = _listed(options, report) if options.labels is not None else _sorted_by_folder(options, report)
    clips = _distinct(found, report)
    labels = [label for clip in clips for label in clip.labels]
    classes = class_list(options, labels if options.split == "train" else None, labels, report)
    out = output_folder(options)
    items: list[Item] = []
    plan = Plan(fps=options.fps, window=options.window, audio_track=options.audio_track)
    for clip, cut in zip(clips, cut_all(clips, out, plan, options, report), strict=True):
        for name in cut:
            items.append(
                Item(
                    id=name,
                    sources=tuple(Source(label=label, sounding=True, on_screen=True) for label in clip.labels),
                    split=options.split,
                    dataset="videos",
                    video=clip.stem,
                    frame=pieces(out, name)[0],
                    audio=pieces(out, name)[1],
                )
            )
    report.counts[CUT] = len(clips)
    return Import(classes=classes, items=items, report=report)


def _sorted_by_folder(options: ImportOptions, report: Report) -> list[Labelled]:
    """Find the videos of ROOT/<class>/**; other files are noted."""
    root, passed = options.root, PassedOver()
    own = [output_folder(options)]
    by_class: dict[str, list[Path]] = {path.name: [] for path in root.iterdir() if _is_class(path, own)}
    for path in find_videos(root, passed, skip=own):
        parts = path.relative_to(root).parts
        if len(parts) == 1:
            report.problem(OUTSIDE, parts[0])
        else:
            by_class[parts[0]].append(path)
    _note_passed(passed, options, report)
    clips = []
    for name, paths in sorted(by_class.items()):
        if not paths:
            report.problem(NONE_INSIDE, name, harmless=True)
        elif not is_text(name):
            raise InputError(
                f"class folder {root / name} has a name that is not UTF-8: rename it, for example with convmv"
            )
        check_names(str(root), "class folder", [name])
        labels = (canonical(name),)
        clips += [Labelled(path=path, labels=labels, stem=stem_of(path.relative_to(root))) for path in paths]
    if not clips:
        outside = f" ({len(report.problems[OUTSIDE])} lie outside of any)" if OUTSIDE in report.problems else ""
        raise InputError(
            f"{root} has no videos in folders named after classes{outside}: give --labels, a csv of file and class"
        )
    return clips


def _is_class(path: Path, own: Sequence[Path]) -> bool:
    return path.is_dir() and not is_clutter(path.name) and path.resolve() not in [folder.resolve() for folder in own]


def _note_passed(passed: PassedOver, options: ImportOptions, report: Report) -> None:
    written = {options.output.name, options.output.name + ".partial"}
    for name in passed.hidden:
        report.problem(HIDDEN, name, harmless=True)
    for name in passed.other:
        if name not in written or options.output.resolve().parent != options.root.resolve():
            report.problem(OTHER, name, harmless=True)
    for name in passed.unreadable:
        report.problem(UNREADABLE, name)


def _listed(options: ImportOptions, report: Report) -> list[Labelled]:
    assert options.labels is not None
    clips = []
    rows = read_rows(options.labels, range(2, 12))
    if len(rows) > 1 and "." not in rows[0][0] and _find(options.root, rows[0][0]) is None:
        report.notes.append(f"the first row of {options.labels} names no file: it was read as a header ({rows[0][0]})")
        rows = rows[1:]
    for file, *names in rows:
        path = _find(options.root, file)
        if path is None:
            raise InputError(
                f"{options.labels}: video {options.root / file} {no_file(options.root / file)}: mend the list or the "
                "folder"
            )
        below = _below(path, options.root)
        if below is None:
            raise InputError(f"{options.labels}: video {file} is not below {options.root}: give a ROOT that holds it")
        if strange := next((name for name in names if not is_text(name)), None):
            raise InputError(f"{options.labels}: class {strange!r} of {file} is not UTF-8: save the list as UTF-8")
        labels = tuple(dict.fromkeys(canonical(label) for label in names if label))
        # a quote that is never closed makes one class of all lines behind it
        check_names(f"{options.labels}: {file}", "class", labels)
        clips.append(Labelled(path=path, labels=labels, stem=stem_of(below)))
    return clips


def _find(root: Path, name: str) -> Path | None:
    """Find the file of a list's entry: as written, with its accents composed or decomposed, or with \\\\ for /."""
    spellings = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")), name.replace("\\", "/")]
    return next((root / spelling for spelling in spellings if (root / spelling).is_file()), None)


def _below(path: Path, root: Path) -> Path | None:
    """Return the path of a file relative to the root, however both are written; None if it lies elsewhere."""
    for clean in (os.path.abspath, os.path.realpath):
        file, folder = Path(clean(path)), Path(clean(root))
        if file.is_relative_to(folder):
            return file.relative_to(folder)
    return None


def _distinct(clips: list[Labelled], report: Report) -> list[Labelled]:
    """Keep every video once. Raises InputError for two whose pieces would have the same names."""
    found: dict[str, Labelled] = {}
    for clip in clips:
        other = found.setdefault(clip.stem, clip)
        if other.path.resolve() != clip.path.resolve():
            raise InputError(f"the pieces of {other.path} and {clip.path} would have the same names: rename one")
        if other is not clip:
            report.problem(DUPLICATE, clip.stem)
    return list(found.values())
