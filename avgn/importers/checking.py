"""Decodes every frame and sound that items name, so that a damaged one is found before training meets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from avgn.importers.report import NUM_EXAMPLES, Report
from avgn.importers.wav import read_header
from avgn.runtime.errors import InputError
from avgn.runtime.limits import LARGEST_STILL
from avgn.runtime.manifest import Item
from avgn.runtime.reading import read_frame, read_through
from avgn.runtime.regular import read_regular

BAD_FRAME = "with a frame that can't be decoded"
BAD_AUDIO = "with a sound that can't be decoded"
JPEG = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
# cameras append up to a few KB after the end of the picture
TAIL_BYTES = 4096


def keep_readable(
    items: Iterable[Item], jobs: int, report: Report, progress: Callable[[int], None] | None = None
) -> list[Item]:
    """Return the items whose files all decode; note the others in the report. Every file is read once, by `jobs`
    threads.

    `progress` is called with the number of files read.
    """
    listed = list(items)
    work: dict[Path, Callable[[Path], str | None]] = {}
    for item in listed:
        work.update(dict.fromkeys(item.frames, fault_of_frame))
        work.update(dict.fromkeys(item.sounds, fault_of_audio))
    faults: dict[Path, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda path: work[path](path), work)
        for done, (path, fault) in enumerate(zip(work, found, strict=True), start=1):
            if fault is not None:
                faults[path] = fault
            if progress is not None:
                progress(done)
    report.counts["files decoded"] = len(work)
    report.notes += list(faults.values())[:NUM_EXAMPLES]
    return [item for item in listed if not _note(item, faults, report)]


def fault_of_frame(path: Path) -> str | None:
    """Say what is wrong with a picture file; None if nothing is."""
    try:
        data = read_regular(path, LARGEST_STILL)
        read_frame(path, (1, 1))
    except OSError as error:
        return f"frame {path} can't be read ({error.strerror}): mend or remove the item"
    except InputError as error:
        return str(error)
    # OpenCV 4 fills what is missing of a cut JPEG with grey and says so to the terminal alone
    if data.startswith(JPEG) and JPEG_END not in data[-TAIL_BYTES:]:
        return f"frame {path} is cut off (it has no end mark): mend or remove the item"
    return None


def fault_of_audio(path: Path) -> str | None:
    """Say what is wrong with a wav file; None if nothing is."""
    try:
        read_through(path)
        header = read_header(path)
    except InputError as error:
        return str(error)
    if header.missing:
        return f"audio {path} ends {header.missing} bytes before its header says: mend or remove the item"
    return None


def _note(item: Item, faults: dict[Path, str], report: Report) -> bool:
    """Note an item with a damaged file; return whether it has one."""
    for kind, files in ((BAD_FRAME, item.frames), (BAD_AUDIO, item.sounds)):
        if any(path in faults for path in files):
            report.problem(kind, item.id)
            return True
    return False
