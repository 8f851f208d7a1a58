"""Folders of video files: frames and the sound around them, cut in parallel; what was cut stays."""

from __future__ import annotations

import math
import multiprocessing
import os
import wave
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avgn.datasets.base import Import, Options, class_list
from avgn.datasets.files import canonical, read_rows
from avgn.datasets.report import Report
from avgn.progress import Progress
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Source

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv")
RATE = 22_050
QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video with its labels; `stem` names what is cut from it."""

    path: Path
    labels: tuple[str, ...]
    stem: str


def import_videos(options: Options) -> Import:
    """ROOT/<class>/<clip>.mp4, or a csv (`labels`) of file, class[, class ...] with files below ROOT.

    Every 1 / fps seconds gives an item: the frame and `window` seconds of sound around it, in a folder beside the
    manifest. What is there from an earlier run is not cut again.
    """
    report = Report()
    if not 0 < options.fps <= 60 or not 0.1 <= options.window <= 60:
        raise InputError(f"--fps must be in 0..60 and --window in 0.1..60, got {options.fps} and {options.window}")
    clips = _listed(options) if options.labels is not None else _sorted_by_folder(options.root)
    classes = class_list(options, None, [label for clip in clips for label in clip.labels], report)
    out = options.output.with_name(options.output.stem + "_cut")
    for name in ("frames", "audio"):
        (out / name).mkdir(parents=True, exist_ok=True)
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
                    frame=out / "frames" / f"{name}.jpg",
                    audio=out / "audio" / f"{name}.wav",
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
        labels = tuple(dict.fromkeys(canonical(label) for label in row[1:] if label))
        clips.append(Clip(path=path, labels=labels, stem=_stem(path, options.root)))
    return clips


def _stem(path: Path, root: Path) -> str:
    return "__".join(path.relative_to(root).with_suffix("").parts).replace(" ", "_")


def _cut_all(clips: list[Clip], out: Path, options: Options, report: Report) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in clips]
    work = [(clip, out, options.fps, options.window) for clip in clips]
    progress = Progress("clips", len(clips)) if options.show_progress else None
    if progress:
        progress.__enter__()
    try:
        if options.jobs == 1 or len(clips) == 1:
            outcomes = ((at, *_try(*each)) for at, each in enumerate(work))
            for done, (at, names, error) in enumerate(outcomes, start=1):
                _note(clips[at], names, error, found, at, report)
                if progress:
                    progress(done)
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(options.jobs, len(clips)), mp_context=context) as pool:
                futures = {pool.submit(_try, *each): at for at, each in enumerate(work)}
                for done, future in enumerate(as_completed(futures), start=1):
                    at = futures[future]
                    _note(clips[at], *future.result(), found, at, report)
                    if progress:
                        progress(done)
    finally:
        if progress:
            progress.__exit__(None, None, None)
    return found


def _note(clip: Clip, names: list[str], error: str | None, found: list[list[str]], at: int, report: Report) -> None:
    if error is not None:
        report.problem("unreadable videos", clip.stem)
        report.notes.append(f"{clip.path}: {error}")
    found[at] = names


def _try(clip: Clip, out: Path, fps: float, window: float) -> tuple[list[str], str | None]:
    try:
        return cut_clip(clip, out, fps, window), None
    except Exception as error:
        return [], " ".join(str(error).split())[:200]


def cut_clip(clip: Clip, out: Path, fps: float, window: float) -> list[str]:
    """Cut one video; the names of its pieces. A finished video leaves a mark and is not decoded again."""
    mark = out / f"{clip.stem}.done"
    wanted = f"{fps} {window} {clip.path.stat().st_size}"
    if mark.is_file():
        said = mark.read_text().splitlines()
        if said and said[0] == wanted:
            return said[1:]
    names = _cut(clip, out, fps, window)
    partial = mark.with_suffix(".partial")
    partial.write_text("\n".join([wanted, *names]) + "\n")
    partial.replace(mark)
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
        start = min(max(0, round(frame.time * RATE) - length // 2), max(0, clock.end - length))
        _write_wav(out / "audio" / f"{name}.wav", clock.window(start, min(length, clock.end)))
        done, data = cv2.imencode(".jpg", frame.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise InputError(f"a frame of {clip.path} can't be written as JPEG")
        _replace(out / "frames" / f"{name}.jpg", data.tobytes())
        names.append(name)
    return names


def _write_wav(path: Path, samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    partial = path.with_suffix(".partial")
    with wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.clip(np.round(32767 * samples), -32768, 32767).astype("<i2").tobytes())
    os.replace(partial, path)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
