"""Writes scenes to a folder: frames, sounds, masks (or videos) and the manifest that lists them."""

from __future__ import annotations

import multiprocessing
import os
import wave
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.interrupts import leave_to_parent
from avgn.runtime.manifest import Item, Source, write_manifest
from avgn.runtime.outputs import new_folder
from avgn.scenes.classes import CLASSES
from avgn.scenes.scene import Scene, SceneConfig, render_scene
from avgn.scenes.synth import RATE
from avgn.scenes.video import MAX_SECONDS, write_video_item

DATASET = "synthetic"
JPEG_QUALITY = 92


def synthesize(
    out: str | os.PathLike[str],
    *,
    scenes: int,
    config: SceneConfig,
    seed: int,
    jobs: int = 1,
    video_seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write scenes 0..scenes-1 of a seed into the new or empty folder `out` and return its manifest's path.

    Stills: frames/<id>.jpg, audio/<id>.wav (22 050 Hz mono), masks/<id>_<k>.png. With `video_seconds`: video/<id>.mp4
    and video_masks/<id>.npz instead. The same seed gives the same bytes whatever `jobs` is; scene k does not depend on
    how many there are. `progress` is called with the number of scenes done. Everything is written beside `out` under
    another name first, so that the manifest appears last or not at all. `jobs`: processes; `video_seconds`: length of
    each video, from 1. More than one job starts new processes: scripts
    need the usual `if __name__ == "__main__"`. Raises InputError for arguments it can't use.
    """
    if scenes < 1:
        raise InputError(f"scenes {scenes} is not usable: give a number from 1")
    if jobs < 1:
        raise InputError(f"jobs {jobs} is not usable: give a number from 1")
    if seed < 0:
        raise InputError(f"seed {seed} must not be negative: use a whole number from 0")
    if video_seconds is not None and not 1 <= video_seconds <= MAX_SECONDS:
        raise InputError(f"video_seconds {video_seconds} is not usable: use 1 to {MAX_SECONDS}")
    out = Path(os.path.abspath(out))
    names: tuple[str, ...]
    work: Callable[[int], Item]
    with new_folder(out) as folder:
        if video_seconds is None:
            names = ("frames", "audio", "masks")
            work = partial(write_scene, folder, config, seed)
        else:
            names = ("video", "video_masks")
            work = partial(write_video_item, folder, config, seed, video_seconds)
        for name in names:
            (folder / name).mkdir()
        items = []
        for item in _run(work, scenes, jobs):
            items.append(item)
            if progress is not None:
                progress(len(items))
        write_manifest(folder / "manifest.jsonl", CLASSES, items)
    return out / "manifest.jsonl"


def write_scene(folder: Path, config: SceneConfig, seed: int, index: int) -> Item:
    """Render one still scene and write its files."""
    scene = render_scene(config, seed, index)
    name = f"{config.split}-{index:07d}"
    frame, audio = folder / "frames" / f"{name}.jpg", folder / "audio" / f"{name}.wav"
    _write_image(frame, scene.frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_wav(audio, scene.audio)
    return Item(
        id=name,
        sources=tuple(_write_sources(folder, name, scene)),
        split=config.split,
        dataset=DATASET,
        video=name,
        frame=frame,
        audio=audio,
    )


def write_wav(path: Path, audio: NDArray[np.float32]) -> None:
    """Write [T] float32 in -1..1 as 16-bit mono at 22 050 Hz."""
    samples = np.clip(np.round(audio * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def _write_sources(folder: Path, name: str, scene: Scene) -> Iterator[Source]:
    for index, thing in enumerate(scene.objects):
        mask = None
        if thing.mask is not None:
            mask = folder / "masks" / f"{name}_{index}.png"
            _write_image(mask, thing.mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
        yield Source(
            label=thing.label,
            sounding=thing.sounding,
            on_screen=thing.on_screen,
            boxes=() if thing.box is None else (thing.box,),
            mask=mask,
        )


def _write_image(path: Path, image: NDArray[np.uint8], options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise FailureError(f"{path.name} could not be encoded: OpenCV has no encoder for {path.suffix}")
    path.write_bytes(data.tobytes())


def _start() -> None:
    """Prepare a worker: its parent decides when it ends."""
    leave_to_parent()
    cv2.setNumThreads(1)


def _run(work: Callable[[int], Item], scenes: int, jobs: int) -> Iterable[Item]:
    """Yield the items of all scenes in order, from this process or a pool of new ones."""
    if jobs == 1 or scenes == 1:
        yield from map(work, range(scenes))
        return
    # Spawned, not forked: the caller may have threads (OpenCV, torch) that a fork would break.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, scenes), mp_context=context, initializer=_start) as pool:
        try:
            yield from pool.map(work, range(scenes), chunksize=max(1, min(32, scenes // (4 * jobs))))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
