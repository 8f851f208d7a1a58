"""Cuts frames and sounds out of videos, in parallel; pieces of an earlier run are kept and not cut again."""

from __future__ import annotations

import hashlib
import io
import json
import math
import multiprocessing
import os
import wave
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avgn.importers.base import ImportOptions
from avgn.importers.report import Report
from avgn.progress import Progress
from avgn.runtime.clock import AudioClock
from avgn.runtime.documents import LARGEST, parse_json
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.files import write_whole
from avgn.runtime.interrupts import end_with_parent, leave_to_parent
from avgn.runtime.media import MediaFile, VideoFrame, open_media
from avgn.runtime.regular import read_regular
from avgn.runtime.texts import is_name

CUT = "clips"
UNUSABLE = "videos that can't be used"
AUDIO_RATE = 22_050
JPEG_QUALITY = 92
# the most seconds of sound that are kept around a clip's middle frame
MOST_AUDIO_SECONDS = 30.0
# bytes of a stem: file systems take names of 255, and times and suffixes follow
MOST_STEM_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Names a video file and the `stem` of the pieces that are cut from it."""

    path: Path
    stem: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Says what to cut: a frame every 1 / `fps` seconds with `window` seconds of sound; `fps` None: the middle
    alone. `audio_track`: of which sound track."""

    fps: float | None = None
    window: float = MOST_AUDIO_SECONDS
    audio_track: str | None = None


Work = tuple[Clip, Path, Plan]


class UnwrittenError(InputError):
    """A piece can't be written, which is not the video's fault: the disk is full."""


class Pieces:
    """Writes the files of one video into a folder; those that were not there before can be taken back."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._fresh: list[Path] = []

    def write(self, path: Path, content: str | bytes) -> None:
        """Raises UnwrittenError."""
        is_there = path.exists()
        try:
            write_whole(path, content)
        except InputError as error:
            raise UnwrittenError(str(error)) from None
        if not is_there:
            self._fresh.append(path)

    def take_back(self) -> None:
        for path in self._fresh:
            path.unlink(missing_ok=True)


def cut_folder(options: ImportOptions) -> Path:
    """Where the pieces go: beside the manifest."""
    return options.output.with_name(options.output.stem + "_cut")


def output_folder(options: ImportOptions) -> Path:
    """Make the folder of the pieces. Raises InputError if that fails."""
    out = cut_folder(options)
    try:
        for name in ("frames", "audio"):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {out} can't be made ({error.strerror}): choose another --output") from None
    return out


def stem_of(path: Path) -> str:
    """Turn a video's path below the root into one file name: short enough, and of characters that can be shown."""
    text = "__".join(path.with_suffix("").parts).replace(" ", "_")
    text = "".join("_" if char.isspace() or not is_name(f"a{char}") else char for char in text)
    if len(os.fsencode(text)) <= MOST_STEM_BYTES:
        return text
    short = os.fsencode(text)[: MOST_STEM_BYTES - 12].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:10]}"


def cut_all(clips: Sequence[Clip], out: Path, plan: Plan, options: ImportOptions, report: Report) -> list[list[str]]:
    """Cut every clip and return the names of its pieces; unreadable clips are noted in the report."""
    found: list[list[str]] = [[] for _ in clips]
    errors: list[str | None] = [None] * len(clips)
    work = [(clip, out, plan) for clip in clips]
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
    """Yield (index, names, what is wrong) of every clip as it is finished.

    Raises UnwrittenError when the disk is full, FailureError when a process dies.
    """
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
        # otherwise a long video would be cut to its end first; a piece is either whole or absent
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave signals to the parent, and end when it ends: an orphan would wait for work forever."""
    leave_to_parent()
    end_with_parent()


def _try(clip: Clip, out: Path, plan: Plan) -> tuple[list[str], str | None]:
    try:
        return cut_clip(clip, out, plan), None
    except (UnwrittenError, MemoryError):
        raise
    except Exception as error:
        # decoders raise exceptions of any kind for damaged files
        return [], " ".join(str(error).split())


def cut_clip(clip: Clip, out: Path, plan: Plan) -> list[str]:
    """Cut one video and return the names of its pieces. A finished video leaves a mark and is not decoded again.

    Raises InputError for a video that can't be read, UnwrittenError when the pieces can't be written; then no piece is
    left that was not there before.
    """
    mark = out / f"{clip.stem}.done"
    facts = clip.path.stat()
    wanted = f"{plan.fps} {plan.window} {facts.st_size} {facts.st_mtime_ns}"
    if plan.audio_track is not None:
        wanted += f" {plan.audio_track}"
    if (names := _finished(mark, wanted)) is not None and all(p.is_file() for name in names for p in pieces(out, name)):
        return names
    files = Pieces(out)
    try:
        names = _middle(clip, files, plan) if plan.fps is None else _every(clip, files, plan.fps, plan)
        files.write(mark, json.dumps({"wanted": wanted, "names": names}) + "\n")
    except BaseException:
        files.take_back()
        raise
    return names


def pieces(out: Path, name: str) -> tuple[Path, Path]:
    """Return the paths of the picture and the sound of a piece."""
    return out / "frames" / f"{name}.jpg", out / "audio" / f"{name}.wav"


def _finished(mark: Path, wanted: str) -> list[str] | None:
    try:
        said = parse_json(read_regular(mark, LARGEST))
    except (OSError, ValueError):
        return None
    return [str(name) for name in said["names"]] if isinstance(said, dict) and said.get("wanted") == wanted else None


def _sounding(media: MediaFile, window: float) -> Iterator[tuple[VideoFrame, AudioClock]]:
    """Yield all frames in order, each with a clock that holds the sound around it and little more."""
    clock = AudioClock(AUDIO_RATE)
    blocks = media.audio()
    for frame in media.video():
        while not clock.closed and clock.end < (frame.time + window) * AUDIO_RATE:
            block = next(blocks, None)
            if block is None:
                clock.close()
            else:
                clock.push(block.samples, block.rate, block.time)
        yield frame, clock
        clock.forget(_first(frame, clock, round(window * AUDIO_RATE)))


def _first(frame: VideoFrame, clock: AudioClock, length: int) -> int:
    """Return where `length` samples of sound centred on the frame begin, shifted to where there is sound."""
    return min(max(0, round(frame.time * AUDIO_RATE) - length // 2), max(0, clock.end - length))


def _every(clip: Clip, files: Pieces, fps: float, plan: Plan) -> list[str]:
    media = open_media(clip.path, audio_track=plan.audio_track)
    names = []
    index = 0
    for frame, clock in _sounding(media, plan.window):
        # the middle of each interval, so that the first has a sound before it
        if frame.time < (index + 0.5) / fps - 1e-6:
            continue
        index = max(index + 1, math.floor(frame.time * fps + 0.5))
        name = f"{clip.stem}_{round(1000 * frame.time):08d}"
        _write_piece(clip, files, name, frame, clock, plan.window)
        names.append(name)
    if not names:
        raise InputError(f"{clip.path} is shorter than half an interval of --fps {fps:g}: raise --fps")
    return names


def _middle(clip: Clip, files: Pieces, plan: Plan) -> list[str]:
    """Return the middle frame, which is the one that public lists annotate, with the sound around it."""
    media = open_media(clip.path, audio_track=plan.audio_track)
    middle = (media.info.duration or _audio_seconds(media)) / 2
    chosen: tuple[VideoFrame, AudioClock] | None = None
    for chosen in _sounding(media, plan.window):
        if chosen[0].time >= middle - 0.5 / media.info.fps:
            break
    if chosen is None:
        raise InputError(f"{clip.path} holds no picture that can be decoded: leave it out")
    _write_piece(clip, files, clip.stem, *chosen, plan.window)
    return [clip.stem]


def _audio_seconds(media: MediaFile) -> float:
    return max((block.time + len(block.samples) / block.rate for block in media.audio(counted=False)), default=0.0)


def _write_piece(clip: Clip, files: Pieces, name: str, frame: VideoFrame, clock: AudioClock, window: float) -> None:
    """Write one piece, called `name`: the frame as JPEG, and `window` seconds of sound around it as wav."""
    import cv2

    length = round(window * AUDIO_RATE)
    jpeg, wav = pieces(files.out, name)
    files.write(wav, _wav(clock.window(_first(frame, clock, length), min(length, clock.end))))
    done, data = cv2.imencode(".jpg", frame.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise InputError(f"a frame of {clip.path} can't be written as JPEG")
    files.write(jpeg, data.tobytes())


def _wav(samples: NDArray[np.float32]) -> bytes:
    """Encode samples [T] as a mono wav file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(AUDIO_RATE)
        writer.writeframes(np.clip(np.round(32767 * samples), -32768, 32767).astype("<i2").tobytes())
    return file.getvalue()
