"""Renders videos of scenes: objects drift, fall silent and start again; the truth is exact for every frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box, Item, Source
from avgn.scenes.backgrounds import draw_background
from avgn.scenes.classes import draw_waveform
from avgn.scenes.draw import Draw
from avgn.scenes.encode import FPS, encode_video
from avgn.scenes.frame import box_of, draw_and_place
from avgn.scenes.mixture import mix
from avgn.scenes.motion import Interval, draw_intervals, draw_paths, gate
from avgn.scenes.motion import Path as Track
from avgn.scenes.objects import Sprite
from avgn.scenes.placement import paste
from avgn.scenes.scene import SceneConfig, draw_cast, streams
from avgn.scenes.synth import RATE, Wave

SIZE = (640, 360)
MASK_STEP_PIXELS = 2
MAX_SECONDS = 180
CROWDED_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class VideoTruth:
    """Holds the truth of a video of `num_frames` frames; frame i is shown at i / 25 s.

    Every source has its `intervals` (seconds; none if it is silent) and, on screen, its `track` (a box per frame).
    `index` [num_frames, h, w] uint8 at half the video's resolution is 0 for the background and k + 1 for source k.
    """

    sources: tuple[Source, ...]
    index: NDArray[np.uint8]
    num_frames: int


def write_scene_video(
    path: str | os.PathLike[str], *, seed: int, seconds: float, split: str = "test", config: SceneConfig | None = None
) -> VideoTruth:
    """Render one video with sound (MP4: H.264 640x360 at 25 fps, AAC) and return its truth.

    Without `config` it holds 2-3 sources and 1-2 silent things. The file appears whole or not at all.
    Raises InputError for bad arguments and MissingExtraError when PyAV is missing.
    """
    config = config or SceneConfig(split=split, sources=(2, 3), silent=(1, 2))
    if not 1 <= seconds <= MAX_SECONDS:
        raise InputError(f"seconds {seconds} is not usable: use 1 to {MAX_SECONDS}")
    return _render(Path(path), config, seed, 0, seconds)


def write_video_item(folder: Path, config: SceneConfig, seed: int, seconds: float, index: int) -> Item:
    """Render video number `index` of a seed into folder/video and its masks into folder/video_masks."""
    name = f"{config.split}-{index:07d}"
    video, masks = folder / "video" / f"{name}.mp4", folder / "video_masks" / f"{name}.npz"
    truth = _render(video, config, seed, index, seconds)
    np.savez_compressed(masks, index=truth.index)
    return Item(
        id=name,
        sources=truth.sources,
        split=config.split,
        dataset="synthetic",
        video=name,
        video_file=video,
        mask_video=masks,
    )


def _render(path: Path, config: SceneConfig, seed: int, index: int, seconds: float) -> VideoTruth:
    layout, look, hearing = streams(config.split, seed, index, kind=4)
    width, height = SIZE
    num_frames = round(seconds * FPS)
    cast = draw_cast(config, layout)
    intervals = [draw_intervals(seconds, layout) if sounding else () for _, sounding, _ in cast]
    audio = _draw_audio([label for label, _, _ in cast], intervals, seconds, hearing)
    shown = [k for k, (_, _, seen) in enumerate(cast) if seen]
    sprites, tracks = _draw_moving([cast[k][0] for k in shown], height, width, seconds, look)
    _, canvas = draw_background(look, height, width)
    layers = [_Layer(sprite, track, k + 1) for sprite, track, k in zip(sprites, tracks, shown, strict=True)]
    masks = np.zeros((num_frames, height // MASK_STEP_PIXELS, width // MASK_STEP_PIXELS), np.uint8)
    boxes: dict[int, list[Box | None]] = {k: [] for k in shown}

    def frames() -> Iterator[NDArray[np.uint8]]:
        for number in range(num_frames):
            frame, owner = _draw_frame(canvas, layers, number / FPS)
            masks[number] = owner[::MASK_STEP_PIXELS, ::MASK_STEP_PIXELS]
            for k in shown:
                boxes[k].append(_rounded(box_of(owner == k + 1)))
            yield frame

    encode_video(path, frames(), audio, SIZE)
    sources = tuple(
        Source(
            label=label,
            sounding=sounding,
            on_screen=seen,
            intervals=intervals[k],
            track=tuple(boxes[k]) if seen else None,
        )
        for k, (label, sounding, seen) in enumerate(cast)
    )
    return VideoTruth(sources=sources, index=masks, num_frames=num_frames)


def _draw_audio(labels: Sequence[str], intervals: Sequence[tuple[Interval, ...]], seconds: float, d: Draw) -> Wave:
    num = round(seconds * RATE)
    pairs = [(label, parts) for label, parts in zip(labels, intervals, strict=True) if parts]
    return mix([gate(draw_waveform(label, num, d), parts) for label, parts in pairs], num, d).audio


def _draw_moving(
    labels: Sequence[str], height: int, width: int, seconds: float, d: Draw
) -> tuple[list[Sprite], list[Track]]:
    """Draw sprites with paths. Objects that hide one another for long are drawn again a few times, and the best draw is
    kept."""
    best: tuple[float, list[Sprite], list[Track]] = (2.0, [], [])
    for _ in range(6):
        sprites, _ = draw_and_place(labels, height, width, d, most=0.5)
        tracks, share = draw_paths([sprite.mask for sprite in sprites], height, width, seconds, d)
        if share < best[0]:
            best = (share, sprites, tracks)
        if share <= CROWDED_SHARE:
            break
    return best[1], best[2]


class _Layer:
    """Holds a sprite with its shadow as one premultiplied picture that can move by fractions of a pixel."""

    def __init__(self, sprite: Sprite, track: Track, number: int) -> None:
        shift_x, shift_y, softness, darkness = sprite.shadow
        self.pad = int(3 * softness + max(abs(shift_x), abs(shift_y)) + 0.08 * max(sprite.alpha.shape)) + 2
        pads = (self.pad,) * 4
        alpha = cv2.copyMakeBorder(sprite.alpha, *pads, cv2.BORDER_CONSTANT, value=0)
        colour = cv2.copyMakeBorder(sprite.colour, *pads, cv2.BORDER_REPLICATE)
        shade = np.roll(
            cv2.GaussianBlur(alpha, (0, 0), max(softness, 0.3)), (round(shift_y), round(shift_x)), axis=(0, 1)
        )
        opacity = 1 - (1 - np.float32(darkness) * shade) * (1 - alpha)
        self.paint: NDArray[np.float32] = (colour * alpha[..., None]).astype(np.float32)
        self.cover: NDArray[np.float32] = np.dstack([opacity, alpha]).astype(np.float32)
        self.track = track
        self.number = number

    def draw(self, canvas: NDArray[np.float32], owner: NDArray[np.uint8], time: float) -> None:
        """Blend the layer at a time (seconds) into canvas [H, W, 3] and write its number into owner [H, W]."""
        x, y, sway = self.track.at(time)
        left, top = int(np.floor(x)), int(np.floor(y))
        h, w = self.paint.shape[:2]
        matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), sway, 1.0)
        matrix[:, 2] += (x - left, y - top)
        paint = cv2.warpAffine(self.paint, matrix, (w + 1, h + 1))
        opacity, alpha = cv2.split(cv2.warpAffine(self.cover, matrix, (w + 1, h + 1)))
        covered = alpha >= 0.5
        frame, local = paste(covered, left - self.pad, top - self.pad, *owner.shape)
        patch = canvas[frame]
        patch *= cv2.merge([1 - opacity] * 3)[local]
        patch += paint[local]
        owner[frame][covered[local]] = self.number


def _draw_frame(
    background: NDArray[np.float32], layers: Sequence[_Layer], time: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render the frame [H, W, 3] uint8 RGB at a time, and the number of the source visible at every pixel [H, W]."""
    canvas = background.copy()
    owner = np.zeros(canvas.shape[:2], np.uint8)
    for layer in layers:
        layer.draw(canvas, owner, time)
    return (np.clip(canvas, 0, 1) * np.float32(255)).astype(np.uint8), owner


def _rounded(box: Box | None) -> Box | None:
    if box is None:
        return None
    x1, y1, x2, y2 = (round(value, 6) for value in box)
    return (x1, y1, x2, y2)
