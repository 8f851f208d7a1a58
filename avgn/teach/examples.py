"""Examples as people have them: folders of short clips, or of pictures and sounds, read into features.

A picture may say where the thing is: `name.json` beside it holds {"boxes": [[x1, y1, x2, y2], ...]} in parts of its
sides, or `name.mask.png` is bright there. Of a clip a few frames are taken, where it is loudest.

Legend: N patches, T samples, P cells, D width of features, h x w the grid.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.audio import fit_window, loudness_db, resample
from avgn.runtime.container import open_container
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.folders import CLUTTER, VIDEO_SUFFIXES
from avgn.runtime.image import resize
from avgn.runtime.patches import cut_patches
from avgn.runtime.pictures import Pictures
from avgn.runtime.reading import read_part, read_still
from avgn.runtime.regular import open_regular
from avgn.runtime.tracks import audio_stream, video_stream
from avgn.teach.features import Encoders
from avgn.teach.marks import MASK, PICTURES, read_marks

SOUNDS = frozenset(
    [
        ".wav",
        ".wave",
        ".mp3",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".m4a",
        ".m4b",
        ".aac",
        ".wma",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".caf",
        ".amr",
        ".ac3",
        ".mka",
        ".w64",
    ]
)
# files of one class that are read; of more, as many spread over all of them
MOST_FILES = 200
# entries of a folder that are looked at
MOST_ENTRIES = 100_000
# seconds of a sound and of a clip that are read, and the frames of a clip that are taken
MOST_SECONDS = 20.0
FRAMES = 3
# a sound below this level, in dBFS of its loudest patch, is silence
SILENCE_DB = -60.0
# seconds that can be heard, in blocks of so many, below which a sound means nothing: repeated for a window it buzzes
SHORTEST_SECONDS = 0.1
BLOCK_SECONDS = 0.01
# patches this far below the loudest of their clip are its pauses
PAUSE_DB = 25.0
# patches of one clip that are kept, evenly spread
MOST_PATCHES = 20
# a picture whose values vary by less is of one colour
PLAIN = 2.0
KINDS = ("clip", "picture", "sound")


class SilentError(InputError):
    """A sound in which nothing, or next to nothing, can be heard."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file to learn from, or a picture and a sound of one name."""

    name: str
    kind: str
    picture: Path | None = None
    sound: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(file for file in (self.picture, self.sound) if file is not None))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Cells [P, D] of a picture, and which part of each the thing covers [P] (None: nobody said)."""

    cells: Floats
    inside: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """What one file, or a pair, shows and lets hear: pictures, and features [N, D] of the patches that are no pause."""

    name: str
    kind: str
    pictures: tuple[Picture, ...] = ()
    heard: Floats | None = None
    # None: of no file
    found: Found | None = None


@dataclass(kw_only=True)
class Examples:
    """All of one class: what is used, and what is not, with the reason."""

    label: str
    used: list[Example] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    # files that were there and not looked at, because there are so many
    passed: int = 0

    @property
    def sounds(self) -> list[Example]:
        return [each for each in self.used if each.heard is not None]

    @property
    def seen(self) -> list[Example]:
        return [each for each in self.used if each.pictures]


def find_examples(label: str, folder: str | os.PathLike[str]) -> tuple[list[Found], int]:
    """List what can be learnt from in a folder and those inside it, and how many files beyond MOST_FILES were passed.

    Raises InputError for a folder that is missing or holds nothing of use.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}: --class {label}=FOLDER names a folder of clips, pictures or sounds")
    files = sorted(_walk(root))
    shown = [file for file in files if _is(file, PICTURES) and not _is_mask(file)]
    # of several pictures of one name, as exports leave them, the first goes with the sound; all are used
    pictures = {file.with_suffix(""): file for file in reversed(shown)}
    paired: set[Path] = set()
    videos = {file.with_suffix(""): file for file in files if _is(file, VIDEO_SUFFIXES)}
    sounds = {file.with_suffix("") for file in files if _is(file, SOUNDS)}
    found: list[Found] = []
    for file in files:
        stem, name = file.with_suffix(""), str(file.relative_to(root))
        if _is(file, VIDEO_SUFFIXES):
            # a sound of its name stands for its own
            if stem not in sounds or videos[stem] != file:
                found.append(Found(name=name, kind="clip", picture=file, sound=file))
        elif _is(file, SOUNDS) and stem in videos:
            found.append(Found(name=name, kind="clip", picture=videos[stem], sound=file))
        elif _is(file, SOUNDS):
            picture = pictures.pop(stem, None)
            paired |= {picture} if picture else set()
            found.append(Found(name=name, kind="clip" if picture else "sound", picture=picture, sound=file))
    alone = [file for file in shown if file not in paired]
    found += [Found(name=str(file.relative_to(root)), kind="picture", picture=file) for file in alone]
    if not found:
        raise InputError(f"folder {root} of class {label!r} holds no clip, picture or sound: put some into it")
    return _spread(found)


def read_examples(label: str, found: Sequence[Found], encoders: Encoders, say: Callable[[], None]) -> Examples:
    """Read files into features; those that can't be used are listed with the reason."""
    examples = Examples(label=label)
    known: dict[str, str] = {}
    for each in found:
        try:
            digest = content_of(each)
            if digest in known:
                raise InputError(f"the same content as {known[digest]}")
            examples.used.append(_read(each, encoders, examples))
            # a copy of what can't be used may be what can: beside it lies no broken file of boxes
            known[digest] = each.name
        except MissingExtraError:
            raise
        except (InputError, ValueError, OSError) as error:
            examples.left_out.append((each.name, _reason(error)))
        say()
    return examples


def content_of(found: Found) -> str:
    """What the files' bytes hash to."""
    digest = hashlib.sha256()
    for path in found.files:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_contradictions(classes: dict[str, Sequence[Found]]) -> None:
    """Raise InputError for a file that lies, by its content, in two classes."""
    sizes: dict[int, list[tuple[str, Path]]] = {}
    for label, found in classes.items():
        for path in (path for each in found for path in each.files):
            try:
                size = path.stat().st_size
            except OSError:
                continue
            # empty ones, which broken downloads leave, are no clips: they are left out by name
            if size:
                sizes.setdefault(size, []).append((label, path))
    for same in sizes.values():
        # only what is as long can be the same
        if len({label for label, _ in same}) < 2:
            continue
        hashes: dict[str, tuple[str, Path]] = {}
        for label, path in same:
            try:
                digest = content_of(Found(name="", kind="sound", sound=path))
            except (OSError, InputError):
                continue
            other = hashes.setdefault(digest, (label, path))
            if other[0] != label:
                raise InputError(
                    f"{path} of class {label!r} is the same clip as {other[1]} of class {other[0]!r}: it can't be "
                    "both, so remove one of them"
                )


def _walk(root: Path) -> Iterator[Path]:
    count = 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if _shown(name))
        for name in files:
            count += 1
            if count > MOST_ENTRIES:
                raise InputError(f"folder {root} holds more than {MOST_ENTRIES} files: give a folder of examples alone")
            if _shown(name):
                yield Path(folder) / name


def _shown(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in CLUTTER


def _is(file: Path, suffixes: frozenset[str]) -> bool:
    return file.suffix.lower() in suffixes


def _is_mask(file: Path) -> bool:
    return file.with_suffix("").suffix.lower() == MASK


def _spread(found: list[Found]) -> tuple[list[Found], int]:
    """As many of each kind as are read, evenly spread."""
    kept: list[Found] = []
    for kind in KINDS:
        some = [each for each in found if each.kind == kind]
        at = np.linspace(0, len(some) - 1, min(len(some), MOST_FILES)).round().astype(int)
        kept += [some[k] for k in dict.fromkeys(at.tolist())]
    return kept, len(found) - len(kept)


def _read(found: Found, encoders: Encoders, examples: Examples) -> Example:
    """Read what a file shows and lets hear; where one of both can't be used, the other is, and the reason is listed."""
    found = _as_it_is(found)
    pictures: tuple[Picture, ...] = ()
    heard: Floats | None = None
    loudest: tuple[float, ...] = ()
    wrong: list[str] = []
    if found.sound is not None:
        try:
            moving = found.picture is not None and _is(found.picture, VIDEO_SUFFIXES)
            heard, loudest = _hear(found.sound, encoders, begin=moving)
        except (InputError, OSError) as error:
            wrong.append(_reason(error) if found.picture is None else f"its sound: {_reason(error)}")
    if found.picture is not None:
        try:
            pictures = _see(found, encoders, loudest)
        except (InputError, OSError) as error:
            wrong.append(_reason(error) if found.sound is None else f"its picture: {_reason(error)}")
    if heard is None and not pictures:
        raise InputError("; ".join(dict.fromkeys(wrong)))
    examples.left_out += [(found.name, reason) for reason in wrong]
    return Example(name=found.name, kind=found.kind, pictures=pictures, heard=heard, found=found)


def _as_it_is(found: Found) -> Found:
    """What a file of a video's name really is: without sound pictures, and without pictures a sound."""
    if found.picture is None or found.picture != found.sound:
        return found
    with open_container(found.picture) as container:
        if audio_stream(container) is None:
            return replace(found, kind="picture", sound=None)
        if video_stream(container) is None:
            return replace(found, kind="sound", picture=None)
    return found


def _hear(path: Path, encoders: Encoders, *, begin: bool) -> tuple[Floats, tuple[float, ...]]:
    """Features [N, D] of a sound's patches, and when it is loudest, in parts of what was read.

    Of a long one the middle is read, or with `begin`, where frames go with it, the first seconds. Raises InputError
    for silence.
    """
    return hear(*read_part(path, MOST_SECONDS, lambda: 0.0 if begin else 0.5), encoders)


def hear(samples: Floats, rate: int, encoders: Encoders) -> tuple[Floats, tuple[float, ...]]:
    """Features [N, D] of a sound's patches that are no pause, and when it is loudest, in parts of it.

    Raises InputError for none, SilentError for silence and for less than SHORTEST_SECONDS that can be heard.
    """
    info = encoders.info
    assert info.patches is not None
    waveform = resample(samples, rate, info.sample_rate)
    if not len(waveform):
        raise InputError("it holds no samples")
    heard = audible_seconds(waveform, info.sample_rate)
    if len(waveform) < info.window_samples:
        # as a stream's window would hear it
        waveform = fit_window(waveform, info.window_samples)
    patches = cut_patches(info, waveform[None])[0]
    levels = np.array([loudness_db(patch) for patch in patches])
    if levels.max() < SILENCE_DB:
        raise SilentError(f"it is silent ({levels.max():.0f} dBFS at its loudest)")
    if heard < SHORTEST_SECONDS:
        raise SilentError(f"it is too short ({heard:.2g} s of it can be heard, {SHORTEST_SECONDS:g} s are the least)")
    loud = np.flatnonzero(levels >= levels.max() - PAUSE_DB)
    kept = loud[np.linspace(0, len(loud) - 1, min(len(loud), MOST_PATCHES)).round().astype(int)]
    best = sorted(loud[np.argsort(-levels[loud], kind="stable")][: 3 * FRAMES : 3].tolist())
    return encoders.hear(patches[kept]), tuple(float(at) / len(patches) for at in best)


def audible_seconds(waveform: Floats, rate: int) -> float:
    """Seconds of a waveform [T] in blocks louder than silence; a last block that is cut short counts as far as it
    goes."""
    size = max(1, round(BLOCK_SECONDS * rate))
    blocks = [waveform[at : at + size] for at in range(0, len(waveform), size)]
    return sum(len(block) for block in blocks if loudness_db(block) >= SILENCE_DB) / rate


def _see(found: Found, encoders: Encoders, moments: Sequence[float]) -> tuple[Picture, ...]:
    assert found.picture is not None
    size = encoders.info.image_size
    if found.picture == found.sound or _is(found.picture, VIDEO_SUFFIXES):
        frames = read_frames(found.picture, size, moments or tuple((n + 0.5) / FRAMES for n in range(FRAMES)))
        shown = [frame for frame in frames if shows(frame)]
        if not shown:
            raise InputError("it is of one colour")
        return tuple(Picture(cells=cells) for cells in encoders.see(np.stack(shown)))
    image = resize(read_still("picture", found.picture), size)
    if not shows(image):
        raise InputError("it is of one colour")
    cells = encoders.see(np.ascontiguousarray(image[..., ::-1])[None])[0]
    return (Picture(cells=cells, inside=read_marks(found.picture, len(cells), encoders)),)


def shows(picture: Pixels) -> bool:
    """Whether a picture is not of one colour."""
    return float(picture.std()) >= PLAIN


def read_frames(path: Path, size: tuple[int, int], moments: Sequence[float]) -> list[Pixels]:
    """Frames of a clip at moments in parts of its length."""
    pictures = Pictures(path)
    length = min(MOST_SECONDS, pictures.duration or MOST_SECONDS)
    wanted = [moment * length for moment in moments]
    frames: list[Pixels] = []
    last: Pixels | None = None
    begin: float | None = None
    for frame in pictures:
        begin = frame.time if begin is None else begin
        last = frame.rgb
        while wanted and frame.time - begin >= wanted[0]:
            frames.append(resize(frame.rgb, size))
            wanted.pop(0)
        if not wanted:
            break
    if not frames and last is not None:
        frames.append(resize(last, size))
    if not frames:
        raise InputError("it holds no picture")
    return frames


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"it can't be read ({error.strerror.lower()})"
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
