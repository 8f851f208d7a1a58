"""A short video of four photographs that drift in their panels, with recordings of three of them: real material.

The files lie in `material`; `material/sources.json` and NOTICE name who made them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.runtime.arrays import Pixels
from avgn.runtime.audio import resample
from avgn.runtime.manifest import Box, Source
from avgn.runtime.reading import read_still, read_wav
from avgn.scenes.encode import FPS, encode_video
from avgn.scenes.synth import RATE, Wave

MATERIAL = Path(__file__).parent / "material"
# (width, height) of the video
SIZE = (640, 480)
SECONDS = 14.0
# how far a photograph is enlarged at most, and how long it takes to come and go
ZOOM = 1.08
PERIOD_SECONDS = 7.0
FADE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A photograph: its file, its `area` of the video (x, y, width, height in pixels) and the thing in it (`box` in its
    picture, whose sides have the proportions of the area's)."""

    label: str
    file: str
    area: tuple[int, int, int, int]
    box: Box


@dataclass(frozen=True, kw_only=True)
class Cue:
    """A recording's piece of `seconds` from `skip`, played from `start` at `gain`."""

    label: str
    file: str
    start: float
    seconds: float
    skip: float = 0.0
    gain: float = 1.0


PANELS = (
    Panel(label="speech", file="astronaut.jpg", area=(0, 0, 400, 300), box=(0.21, 0.0, 0.86, 0.98)),
    Panel(label="dog", file="dog.jpg", area=(400, 0, 240, 300), box=(0.0, 0.02, 0.85, 0.95)),
    Panel(label="drum", file="drums.jpg", area=(0, 300, 400, 180), box=(0.05, 0.0, 0.96, 1.0)),
    Panel(label="cat", file="cat.jpg", area=(400, 300, 240, 180), box=(0.06, 0.1, 1.0, 0.8)),
)
# the cat never sounds. Drums and the voice take turns within a
# window, for drums over a voice bury it
CUES = (
    Cue(label="speech", file="speech.flac", start=0.4, seconds=2.89),
    Cue(label="drum", file="drums.flac", start=4.4, seconds=3.4),
    Cue(label="speech", file="speech.flac", start=7.8, seconds=0.95),
    Cue(label="drum", file="drums.flac", start=8.75, seconds=1.6, skip=3.4),
    Cue(label="dog", file="dog.flac", start=10.8, seconds=3.2),
)
LABELS = frozenset(panel.label for panel in PANELS)


def write_collage(path: Path) -> tuple[Source, ...]:
    """Write the video (MP4: H.264 640x480 at 25 fps, AAC) and return the truth of its sources.

    Raises MissingExtraError where PyAV is missing and InputError where `path` can't be written.
    """
    encode_video(path, draw_frames(), draw_waveform(), SIZE)
    return true_sources()


def true_sources() -> tuple[Source, ...]:
    """Return what the video shows: when each thing sounds, and its box in every frame."""
    sources = []
    for panel in PANELS:
        intervals = tuple((cue.start, cue.start + cue.seconds) for cue in CUES if cue.label == panel.label)
        sources.append(
            Source(
                label=panel.label, sounding=bool(intervals), on_screen=True, intervals=intervals, track=_track(panel)
            )
        )
    return tuple(sources)


def read_panel(label: str) -> Pixels:
    """Read the photograph of a label as RGB uint8 [H, W, 3]."""
    panel = next(panel for panel in PANELS if panel.label == label)
    return np.ascontiguousarray(read_still("picture", MATERIAL / panel.file)[..., ::-1])


def read_recording(file: str) -> Wave:
    """Read a recording as float32 [T] at 22 050 Hz."""
    samples, rate = read_wav(MATERIAL / file)
    return resample(samples, rate, RATE)


def draw_waveform() -> Wave:
    """Mix the recordings: float32 [T] at 22 050 Hz."""
    mixed = np.zeros(round(SECONDS * RATE), np.float32)
    for cue in CUES:
        first = round(cue.skip * RATE)
        piece = cue.gain * read_recording(cue.file)[first : first + round(cue.seconds * RATE)]
        fade = np.minimum(np.arange(len(piece)) / (FADE_SECONDS * RATE), 1.0).astype(np.float32)
        begin = round(cue.start * RATE)
        mixed[begin : begin + len(piece)] += (piece * fade * fade[::-1])[: len(mixed) - begin]
    return mixed


def draw_frames() -> Iterator[NDArray[np.uint8]]:
    """Draw the frames, each RGB uint8 [480, 640, 3]."""
    photographs = [read_panel(panel.label) for panel in PANELS]
    for number in range(round(SECONDS * FPS)):
        frame = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
        for panel, photograph in zip(PANELS, photographs, strict=True):
            x, y, width, height = panel.area
            zoom, shift = _view(panel, number / FPS)
            scale = np.array([width, height]) * zoom / photograph.shape[1::-1]
            matrix = np.array([[scale[0], 0, shift[0] * width], [0, scale[1], shift[1] * height]])
            frame[y : y + height, x : x + width] = cv2.warpAffine(
                photograph, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
            )
        yield frame


def _view(panel: Panel, time: float) -> tuple[float, NDArray[np.float64]]:
    """Return (zoom, shift [2]) that take a place of a picture to one of its panel, both in 0..1: a slow zoom about the
    thing."""
    phase = 2 * np.pi * time / PERIOD_SECONDS + PANELS.index(panel)
    zoom = 1 + (ZOOM - 1) * 0.5 * (1 - float(np.cos(phase)))
    x1, y1, x2, y2 = panel.box
    # the thing's centre stays where it is, so no edge of the picture is ever seen
    return zoom, np.array([(x1 + x2) / 2, (y1 + y2) / 2]) * (1 - zoom)


def _track(panel: Panel) -> tuple[Box, ...]:
    x, y, width, height = panel.area
    corners = np.array(panel.box).reshape(2, 2)
    track: list[Box] = []
    for number in range(round(SECONDS * FPS)):
        zoom, shift = _view(panel, number / FPS)
        seen = np.clip(zoom * corners + shift, 0, 1)
        (x1, y1), (x2, y2) = ((seen * (width, height) + (x, y)) / SIZE).tolist()
        track.append((x1, y1, x2, y2))
    return tuple(track)
