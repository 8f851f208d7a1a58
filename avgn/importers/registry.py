"""Lists the data sets that can be imported. To add one, write its file and a line here."""

from __future__ import annotations

import importlib
import unicodedata
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from avgn.importers.base import Import, ImportOptions
from avgn.importers.checking import keep_readable
from avgn.importers.cutting import CUT, UNUSABLE, cut_folder
from avgn.importers.silence import note_muted
from avgn.progress import Progress
from avgn.runtime.documents import LARGEST
from avgn.runtime.errors import InputError
from avgn.runtime.limits import MOST_CLASSES
from avgn.runtime.manifest import check_names, read_manifest, write_manifest
from avgn.runtime.outputs import find_place, no_empty_folders
from avgn.runtime.texts import read_text

ImportFunction = Callable[[ImportOptions], Import]


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Says where an importer is: `function` is "module:function" of this folder; `lists` says which files of the
    metadata folder it reads."""

    function: str
    lists: str

    def load(self) -> ImportFunction:
        module, _, name = self.function.partition(":")
        found: ImportFunction = getattr(importlib.import_module(f"avgn.importers.{module}"), name)
        return found


# the one whose pieces are cut as its user says
VIDEOS = "videos"
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")

IMPORTERS: dict[str, Importer] = {
    "music-solo": Importer(
        function="music:import_solo", lists="music_solo.json, music_solo_train.txt, music_solo_test.csv"
    ),
    "music-duet": Importer(
        function="music:import_duet", lists="music_duet.json, music_duet_train.txt, music_duet_test.csv"
    ),
    "vggsound": Importer(
        function="vggsound:import_vggsound",
        lists="vggsound.csv as published, or vggsound_train.txt and vggsound_single_test.csv; vggss.json",
    ),
    "vggsound-duet": Importer(function="vggsound:import_duet", lists="vggsound_duet_test.csv, vggss.json"),
    "vggsound-instruments": Importer(
        function="instruments:import_instruments",
        lists="vgginstruments_test.csv, _train.txt; --extended: vgginstruments_multi_test.csv; ROOT/masks/<id>.pkl",
    ),
    "vggss": Importer(
        function="vggsound:import_vggss",
        lists="vggss.json, vggss_test.csv; --extended: vggss_test_plus_silent.csv",
    ),
    "flickr": Importer(
        function="flickr:import_flickr",
        lists="flickr_test.csv, ROOT/Annotations/<id>.xml; --extended: flickr_test_plus_silent.csv",
    ),
    "dsol-solo": Importer(function="dsol:import_solo", lists="dsol/solotest.json"),
    "dsol-duet": Importer(function="dsol:import_duet", lists="dsol/duettest.json"),
    VIDEOS: Importer(function="videos:import_videos", lists="none; --labels: a csv of file and classes"),
}


def import_dataset(kind: str, options: ImportOptions, *, strict: bool = False) -> Import:
    """Read a data set and write its manifest; the result's report says what was found.

    Raises InputError for an unknown kind, lists and files that can't be used, an empty outcome, and with `strict` for
    any problem; then no manifest is written.
    """
    if kind not in IMPORTERS:
        raise InputError(f"data set {kind!r} is not known: choose from {', '.join(IMPORTERS)}")
    if options.split not in ("train", "test"):
        raise InputError(f"--split must be train or test, got {options.split!r}")
    if not options.root.is_dir():
        holds = "the videos" if kind == VIDEOS else "frames/ and audio/"
        unpack = "unpack it and " if options.root.suffix.lower() in ARCHIVES else ""
        raise InputError(f"{options.root} is no folder: {unpack}give the one that holds {holds}")
    find_place(options.output)
    if options.jobs < 1:
        raise InputError(f"--jobs must be at least 1, got {options.jobs}")
    out = cut_folder(options)
    with no_empty_folders(out / "frames", out / "audio", out):
        found = IMPORTERS[kind].load()(options)
        if options.audio_track is not None and CUT not in found.report.counts:
            raise InputError(
                f"--audio-track is for videos that are cut, {options.root} has its sounds as files: leave it out"
            )
        if options.check:
            progress = Progress("files") if options.show_progress else None
            with progress or nullcontext():
                found.items = keep_readable(found.items, options.jobs, found.report, progress)
        note_muted(found.items, options.jobs, found.report)
        found.report.describe(found.items)
        if strict:
            found.report.refuse()
        if not found.items:
            what = (
                "; ".join(f"{len(ids)} {kind}" for kind, ids in found.report.problems.items()) or "its lists name none"
            )
            # the notes about videos say what is wrong with each
            notes = found.report.notes if UNUSABLE in found.report.problems else []
            way_out = next((note for note in notes if str(options.root) in note), "")
            raise InputError(
                f"{options.root} gives no item ({what}): {way_out or 'give the folder that holds frames/ and audio/'}"
            )
        write_manifest(options.output, found.classes, found.items)
    return found


def read_class_list(path: Path) -> tuple[str, ...]:
    """Read classes from a text file (one a line) or a manifest's header. Raises InputError for an unusable list."""
    if path.suffix == ".jsonl":
        return read_manifest(path, check_files=False).classes
    lines = read_text(path, "class list", "give a text file, one class a line", most=LARGEST).split("\n")
    names = [unicodedata.normalize("NFC", line.strip()) for line in lines if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    check_names(f"class list {path}", "class", names)
    if len(names) > MOST_CLASSES:
        raise InputError(f"class list {path} has {len(names)} classes, more than {MOST_CLASSES}: leave some out")
    if not names or twice:
        what = f"lists {twice[0]!r} twice" if twice else "is empty"
        raise InputError(f"class list {path} {what}: write every class once, one a line")
    return tuple(names)
