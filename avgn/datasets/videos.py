"""Folders of video files: frames and the sound around them, cut in parallel; what was cut stays."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avgn.datasets.base import DUPLICATE, Import, Options, class_list
from avgn.datasets.files import canonical, read_rows
from avgn.datasets.report import Report
from avgn.progress import Progress
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.files import write_whole
from avgn.runtime.interrupts import leave_to_parent
from avgn.runtime.manifest import Item, Source

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv")
UNUSABLE = "videos that can't be used"
RATE = 22_050
QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video with its labels; `stem` names what is cut from it."""

    path: Path
    labels: tuple[str, ...]
    stem: str


Work = tuple[Clip, Path, float, float]


def import_videos(options: Options) -> Import:
    """ROOT/<class>/<clip>.mp4, or a csv (`labels`) of file, class[, class ...] with files below ROOT.

    Every 1 / fps seconds gives an item: the frame and `window` seconds of sound around it, in a folder beside the
    manifest. What is there from an earlier run is not cut again.
    """
    report = Report()
    if not 0 < options.fps <= 60 or not 0.1 <= options.window <= 60:
        raise InputError(f"--fps must be in 0..60 and --window in 0.1..60, got {options.fps} and {options.window}")
    clips = _distinct(_listed(options) if options.labels is not None else _sorted_by_folder(options.root), report)
    labels = [label for clip in clips for label in clip.labels]
    classes = class_list(options, labels if options.split == "train" else None, labels, report)
    out = options.output.with_name(options.output.stem + "_cut")
    try:
        for name in ("frames", "audio"):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {out} can't be made ({error.strerror}): choose another --output") from None
    items: list[Item] = []
    for clip, cut in zip(clips, _cut_all(clips, out, options, report), strict=True):
        for name in cut:
            items.append(
                Item(
                    id=name,
                    sources=tuple(Source(label=label, sounding=True, on_screen=True) for label in clip.labels),
                    split=options.split,
                    dataset="videos",
                    video=clip.stem,
                    frame=_pieces(out, name)[0],
                    audio=_pieces(out, name)[1],
                )
            )
    report.counts["clips"] = len(clips)
    return Import(classes=classes, items=items, report=report)


def _sorted_by_folder(root: Path) -> list[Clip]:
    clips = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                clips.append(Clip(path=path, labels=(canonical(folder.name),), stem=_stem(path, root)))
    if not clips:
        raise InputError(f"{root} has no videos in folders named after classes: give --labels, a csv of file and class")
    return clips


def _listed(options: Options) -> list[Clip]:
    assert options.labels is not None
    clips = []
    for row in read_rows(options.labels, range(2, 12)):
        path = options.root / row[0]
        if not path.is_file():
            raise InputError(f"{options.labels}: video {path} does not exist: mend the list or the folder")
        if not path.is_relative_to(options.root) or ".." in Path(row[0]).parts:
            raise InputError(f"{options.labels}: video {row[0]} is not below {options.root}: give a ROOT that holds it")
        labels = tuple(dict.fromkeys(canonical(label) for label in row[1:] if label))
        clips.append(Clip(path=path, labels=labels, stem=_stem(path, options.root)))
    return clips


def _distinct(clips: list[Clip], report: Report) -> list[Clip]:
    """Every video once. Raises InputError for two whose pieces would have the same names."""
    found: dict[str, Clip] = {}
    for clip in clips:
        other = found.setdefault(clip.stem, clip)
        if other.path != clip.path:
            raise InputError(f"the pieces of {other.path} and {clip.path} would have the same names: rename one")
        if other is not clip:
            report.problem(DUPLICATE, clip.stem)
    return list(found.values())


def _stem(path: Path, root: Path) -> str:
    return "__".join(path.relative_to(root).with_suffix("").parts).replace(" ", "_")


def _cut_all(clips: list[Clip], out: Path, options: Options, report: Report) -> list[list[str]]:
    """The names of the pieces of every clip; unreadable ones are noted in the report."""
    found: list[list[str]] = [[] for _ in clips]
    errors: list[str | None] = [None] * len(clips)
    work = [(clip, out, options.fps, options.window) for clip in clips]
    progress = Progress("clips", len(clips)) if options.show_progress else None
    with progress or nullcontext():
        for done, (at, names, error) in enumerate(_outcomes(work, options.jobs), start=1):
            found[at], errors[at] = names, error
            if progress:
                progress(done)
    for clip, error in zip(clips, errors, strict=True):
        if error is not None:
            report.problem(UNUSABLE, clip.stem)
            report.notes.append(error if str(clip.path) in error else f"{clip.path}: {error}")
    return found


def _outcomes(work: list[Work], jobs: int) -> Iterator[tuple[int, list[str], str | None]]:
    """(place, names, what is wrong) of every clip as it is done. Raises FailureError when a process dies."""
    if jobs == 1 or len(work) == 1:
        yield from ((at, *_try(*each)) for at, each in enumerate(work))
        return
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(min(jobs, len(work)), mp_context=context, initializer=_follow_parent)
    try:
        futures = {pool.submit(_try, *each): at for at, each in enumerate(work)}
        for future in as_completed(futures):
            yield futures[future], *future.result()
    except BrokenProcessPool:
        raise FailureError(
            "a process that cut videos was killed (out of memory?): run the same command again, with fewer --jobs; "
            "what is cut stays"
        ) from None
    except BaseException:
        # a long video would be cut to its end first; pieces are whole or not there
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave signals to the parent, and end with it: orphans of a killed one would wait for work for ever."""
    leave_to_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _try(clip: Clip, out: Path, fps: float, window: float) -> tuple[list[str], str | None]:
    try:
        return cut_clip(clip, out, fps, window), None
    except FailureError:
        raise
    except Exception as error:
        # decoders raise what they like on damaged files
        return [], " ".join(str(error).split())


def cut_clip(clip: Clip, out: Path, fps: float, window: float) -> list[str]:
    """Cut one video; the names of its pieces. A finished video leaves a mark and is not decoded again.

    Raises InputError for a video that can't be read, FailureError when the pieces can't be written.
    """
    mark = out / f"{clip.stem}.done"
    facts = clip.path.stat()
    wanted = f"{fps} {window} {facts.st_size} {facts.st_mtime_ns}"
    if mark.is_file():
        said = mark.read_text(encoding="utf-8").splitlines()
        if said and said[0] == wanted and all(path.is_file() for name in said[1:] for path in _pieces(out, name)):
            return said[1:]
    names = _cut(clip, out, fps, window)
    _write(mark, "\n".join([wanted, *names]) + "\n")
    return names


def _cut(clip: Clip, out: Path, fps: float, window: float) -> list[str]:
    import cv2

    from avgn.runtime.clock import AudioClock
    from avgn.runtime.media import open_media

    media = open_media(clip.path)
    clock = AudioClock(RATE)
    for block in media.audio():
        clock.push(block.samples, block.rate, block.time)
    clock.close()
    length = round(window * RATE)
    names = []
    index = 0
    for frame in media.video():
        # the middle of each interval, so that the first has a sound before it
        if frame.time < (index + 0.5) / fps - 1e-6:
            continue
        index = max(index + 1, math.floor(frame.time * fps + 0.5))
        name = f"{clip.stem}_{round(1000 * frame.time):08d}"
        picture, sound = _pieces(out, name)
        start = min(max(0, round(frame.time * RATE) - length // 2), max(0, clock.end - length))
        _write(sound, _wav(clock.window(start, min(length, clock.end))))
        done, data = cv2.imencode(".jpg", frame.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise InputError(f"a frame of {clip.path} can't be written as JPEG")
        _write(picture, data.tobytes())
        names.append(name)
    if not names:
        raise InputError(f"{clip.path} is shorter than half an interval of --fps {fps:g}: raise --fps")
    return names


def _pieces(out: Path, name: str) -> tuple[Path, Path]:
    return out / "frames" / f"{name}.jpg", out / "audio" / f"{name}.wav"


def _wav(samples: NDArray[np.float32]) -> bytes:
    """Samples [T] as a mono wav file of 16 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(np.clip(np.round(32767 * samples), -32768, 32767).astype("<i2").tobytes())
    return file.getvalue()


def _write(path: Path, content: str | bytes) -> None:
    try:
        write_whole(path, content)
    except InputError as error:
        # no fault of the video: the disk is full
        raise FailureError(str(error)) from None
