"""Folders as people have them: which of their files are videos, and what is passed over, by kind."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from avgn.runtime.errors import InputError

# containers that hold moving pictures, whoever wrote them
_VIDEOS = (
    ".mp4 .m4v .mov .qt .mkv .mk3d .webm .avi .divx .xvid .mpg .mpeg .mpe .mpv .m1v .m2v .m2p .ts .m2ts .mts .m2t .tp "
    ".trp .tod .vob .vro .evo .flv .f4v .wmv .asf .wm .dvr-ms .wtv .3gp .3g2 .3gpp .3gp2 .ogv .ogm .ogx .mxf .gxf .rm "
    ".rmvb .nut .amv .dv .mjpeg .mjpg .y4m"
)
# what lies beside videos without being one; everything else is opened to find out
_OTHERS = (
    ".txt .md .rst .csv .tsv .json .jsonl .yaml .yml .xml .html .htm .pdf .doc .docx .xls .xlsx .srt .vtt .ass .ssa "
    ".sub .idx .nfo .log .ini .url .webloc .torrent .py .ipynb .sh .bat .m3u .m3u8 .pls .cue .zip .tar .gz .tgz .bz2 "
    ".xz .7z .rar .zst .jpg .jpeg .png .gif .webp .bmp .tif .tiff .svg .heic .avif .psd .thm .wav .mp3 .flac .m4a "
    ".aac .opus .oga .wma .aif .aiff .mid .midi .npy .npz .pkl .pickle .pt .pth .onnx .safetensors .h5 .db .sqlite "
    ".exe .dll .so .part .partial .crdownload .download .tmp .bak .done .ifo .bup"
)
VIDEO_SUFFIXES = frozenset(_VIDEOS.split())
OTHER_SUFFIXES = frozenset(_OTHERS.split())
# demuxers of single pictures and of sound with a cover
NOT_VIDEO = ("image2", "_pipe", "mp3", "flac", "ico", "gif", "wav", "aiff", "ape", "tak", "tta", "lrc", "txt", "srt")
# what systems and their tools leave in folders; names that begin with a dot are passed over as well
CLUTTER = frozenset(
    name.casefold()
    for name in (
        *("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "#recycle", "#snapshot", "lost+found"),
        *(
            "$RECYCLE.BIN",
            "RECYCLER",
            "System Volume Information",
            "@Recycle",
            "@Recently-Snapshot",
            "@tmp",
            "found.000",
        ),
        *(
            "Network Trash Folder",
            "Temporary Items",
            "TheVolumeSettingsFolder",
            "__pycache__",
            "Icon\r",
            "node_modules",
        ),
    )
)


@dataclass
class PassedOver:
    """What was not taken: hidden and system entries, files that are no videos, folders that can't be read."""

    hidden: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def is_clutter(name: str) -> bool:
    """Return whether a file or folder of this name belongs to the system or its user's tools, not to the data."""
    return name.startswith(".") or name.casefold() in CLUTTER


def find_videos(
    folder: Path, passed: PassedOver, *, base: Path | None = None, skip: Collection[Path] = ()
) -> Iterator[Path]:
    """Yield the videos below a folder, sorted, links followed once; the rest is noted in `passed`, relative to `base`.

    `skip`: folders that are left out without a note, such as that of the outputs.
    """
    for path in walk_files(folder, passed, base=base, skip=skip):
        if is_video(path):
            yield path
        else:
            passed.other.append(str(path.relative_to(base or folder)))


def walk_files(
    folder: Path, passed: PassedOver, *, base: Path | None = None, skip: Collection[Path] = ()
) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without clutter; a folder that is reached twice through links counts
    once."""
    seen: set[tuple[int, int]] = set()
    left_out = {path.resolve() for path in skip}
    top = base or folder

    def enter(path: Path) -> Iterator[Path]:
        try:
            facts = path.stat()
            entries = sorted(path.iterdir(), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            passed.unreadable.append(str(path.relative_to(top)))
            return
        if (facts.st_dev, facts.st_ino) in seen or path.resolve() in left_out:
            return
        seen.add((facts.st_dev, facts.st_ino))
        for entry in entries:
            if is_clutter(entry.name):
                passed.hidden.append(str(entry.relative_to(top)))
            elif entry.is_dir():
                yield from enter(entry)
            elif entry.is_file():
                yield entry
            else:
                # a device, a FIFO, a socket, a link to nowhere
                passed.other.append(str(entry.relative_to(top)))

    yield from enter(folder)


def is_video(path: Path) -> bool:
    """Return whether a file is a video: by its suffix, and by its content where the suffix says nothing."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in OTHER_SUFFIXES:
        return False
    return _holds_video(path)


def _holds_video(path: Path) -> bool:
    from avgn.runtime.container import open_container
    from avgn.runtime.tracks import ATTACHED_PICTURE, flags_of

    try:
        if path.stat().st_size == 0:
            return False
        with open_container(path) as container:
            if any(name.endswith(kind) for name in container.format.name.split(",") for kind in NOT_VIDEO):
                return False
            return any(not flags_of(stream) & ATTACHED_PICTURE for stream in container.streams.video)
    except (InputError, OSError):
        return False
