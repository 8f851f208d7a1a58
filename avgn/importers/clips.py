"""Imports lists of clips whose files are videos: cuts each one's middle frame and its sound, as in the release
layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from avgn.importers.base import ImportOptions
from avgn.importers.cutting import CUT, Clip, Plan, cut_all, output_folder
from avgn.importers.files import AUDIO_SUFFIXES, FRAME_SUFFIXES, LAYOUT, Files, audio_files, frame_files
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.folders import PassedOver, find_videos

LAYOUT_OF_CLIPS = f"{LAYOUT}, or videos <id>.mp4 anywhere below it"
# YouTube ids may contain and begin with - and _; after the id comes the start second and, in some copies, the end
NAME = re.compile(r"(.{11})_(\d+)(?:_(\d+))?")


def files_of(options: ImportOptions, ids: Iterable[str], report: Report) -> tuple[Files, Files]:
    """Find the pictures and sounds of a list's ids: those of frames/ and audio/, or else cut from the videos below
    ROOT.

    Raises InputError where there is neither.
    """
    root = options.root
    if (root / "frames").is_dir() or (root / "audio").is_dir():
        return frame_files(root), audio_files(root)
    passed = PassedOver()
    found: dict[str, Path] = {}
    for path in find_videos(root, passed, skip=[options.metadata]):
        for name in spellings(path.stem):
            found.setdefault(name, path)
    if not found:
        raise InputError(f"folder {root / 'frames'} does not exist: the layout is {LAYOUT_OF_CLIPS}")
    clips = [Clip(path=found[id], stem=id) for id in dict.fromkeys(ids) if id in found]
    out = output_folder(options)
    cut_all(clips, out, Plan(audio_track=options.audio_track), options, report)
    report.counts[CUT] = len(clips)
    return Files([out / "frames"], FRAME_SUFFIXES, LAYOUT), Files([out / "audio"], AUDIO_SUFFIXES, LAYOUT)


def spellings(stem: str) -> list[str]:
    """List the ids that a file may stand for: its stem, and <YouTube id>_<start in six digits> if it is named
    otherwise.

    Copies of VGGSound name their clips <id>_<start>, <id>_<start>_<end> in seconds, or both in milliseconds.
    """
    told = NAME.fullmatch(stem)
    if told is None:
        return [stem]
    id, start, end = told[1], int(told[2]), told[3]
    in_milliseconds = end is not None and int(end) - start >= 1000
    return [stem, f"{id}_{start // 1000 if in_milliseconds else start:06d}"]
