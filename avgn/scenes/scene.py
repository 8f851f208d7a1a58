"""Renders scenes: pictures and sounds of invented things, with the truth about what sounds and what is visible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box
from avgn.scenes.classes import CLASSES, draw_waveform
from avgn.scenes.draw import SPLITS, Draw, check_split
from avgn.scenes.frame import box_of, draw_frame
from avgn.scenes.mixture import mix
from avgn.scenes.synth import RATE

SIZES = ((224, 224), (256, 192), (296, 168))
MOST_OBJECTS = 6
Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Says what scenes hold: the numbers of sounding sources and of silent visible objects (both ends included).

    `off_screen` is the probability that a source is heard but not seen; `size` is (width, height) in pixels, None
    draws one of SIZES for every scene; `seconds` is the length of the sound.
    """

    split: str
    sources: tuple[int, int] = (0, 3)
    silent: tuple[int, int] = (0, 2)
    off_screen: float = 0.15
    size: tuple[int, int] | None = None
    seconds: float = 3.0

    def __post_init__(self) -> None:
        check_split(self.split)
        for name in ("sources", "silent"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InputError(f"{name} {low}-{high} is no range: give two numbers with 0 <= low <= high")
        most = self.sources[1] + self.silent[1]
        if most > MOST_OBJECTS:
            raise InputError(f"{most} sources and silent objects don't fit into a scene: use at most {MOST_OBJECTS}")
        if not 0 <= self.off_screen <= 1:
            raise InputError(f"off_screen {self.off_screen} is no probability: use a number from 0 to 1")
        if self.size is not None and not all(64 <= side <= 4096 for side in self.size):
            raise InputError(f"size {self.size} is not usable: width and height must lie in 64..4096 pixels")
        if self.size is not None and max(self.size) > 4 * min(self.size):
            raise InputError(f"size {self.size} is too narrow: the longer side may be at most 4 times the shorter one")
        if not 0.1 <= self.seconds <= 600:
            raise InputError(f"seconds {self.seconds} is not usable: use 0.1 to 600")


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """Holds one object of a scene: `box` normalised x1, y1, x2, y2 and `mask` [H, W] of its visible part, `stem` [T] as
    heard.

    `full_area` is the area of the whole object (hidden parts included) as a share of the frame.
    """

    label: str
    sounding: bool
    on_screen: bool
    box: Box | None
    mask: NDArray[np.bool_] | None
    stem: Array | None
    full_area: float | None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Holds frame [H, W, 3] uint8 RGB, and audio [T] float32 at 22 050 Hz = sum of stems + noise (of kind `noise`)."""

    frame: NDArray[np.uint8]
    audio: Array
    objects: tuple[SceneObject, ...]
    background: str
    noise: str
    snr_db: float | None


@dataclass(frozen=True, kw_only=True)
class SwapPair:
    """Holds one frame with two visible objects: in audio_a [T] only object 0 sounds, in audio_b [T] only object 1."""

    frame: NDArray[np.uint8]
    labels: tuple[str, str]
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    audio_a: Array
    audio_b: Array


def streams(split: str, seed: int, index: int, kind: int = 0) -> tuple[Draw, Draw, Draw]:
    """Return independent generators for the layout, the picture and the sound of item `index`; `kind` keeps uses
    apart."""
    if seed < 0 or index < 0:
        raise InputError(f"seed {seed} and index {index} must not be negative: use whole numbers from 0")
    check_split(split)
    root = np.random.SeedSequence([seed, SPLITS.index(split), index, kind])
    layout, look, hearing = (Draw(np.random.default_rng(child), split) for child in root.spawn(3))
    return layout, look, hearing


def draw_cast(config: SceneConfig, layout: Draw) -> list[tuple[str, bool, bool]]:
    """Draw who takes part: (label, sounding, on_screen) in random drawing order, no class twice."""
    sources, silent = layout.integer(*config.sources), layout.integer(*config.silent)
    labels = [CLASSES[k] for k in layout.rng.permutation(len(CLASSES))[: sources + silent]]
    cast = [(label, True, not layout.chance(config.off_screen)) for label in labels[:sources]]
    cast += [(label, False, True) for label in labels[sources:]]
    return [cast[k] for k in layout.rng.permutation(len(cast))]


def render_scene(config: SceneConfig, seed: int, index: int) -> Scene:
    """Render scene number `index` of a seed: a pure function of its arguments."""
    layout, look, hearing = streams(config.split, seed, index)
    width, height = config.size or layout.choice(SIZES)
    cast = draw_cast(config, layout)
    drawn = draw_frame([label for label, _, seen in cast if seen], height, width, look)
    num = round(config.seconds * RATE)
    mixture = mix([draw_waveform(label, num, hearing) for label, sounding, _ in cast if sounding], num, hearing)
    seen_parts = iter(zip(drawn.masks, drawn.full_areas, strict=True))
    stems = iter(mixture.stems)
    objects = []
    for label, sounding, seen in cast:
        mask, area = next(seen_parts) if seen else (None, None)
        objects.append(
            SceneObject(
                label=label,
                sounding=sounding,
                on_screen=seen,
                box=None if mask is None else box_of(mask),
                mask=mask,
                stem=next(stems) if sounding else None,
                full_area=area,
            )
        )
    return Scene(
        frame=drawn.frame,
        audio=mixture.audio,
        objects=tuple(objects),
        background=drawn.background,
        noise=mixture.noise,
        snr_db=mixture.snr_db,
    )


def render_swap(config: SceneConfig, seed: int, index: int) -> SwapPair:
    """Render a frame with two visible objects and two sounds with noise, each of one of the objects.

    Of the config only split, size and seconds count.
    """
    layout, look, hearing = streams(config.split, seed, index, kind=1)
    width, height = config.size or layout.choice(SIZES)
    first, second = (CLASSES[k] for k in layout.rng.permutation(len(CLASSES))[:2])
    drawn = draw_frame([first, second], height, width, look)
    num = round(config.seconds * RATE)
    mixtures = [mix([draw_waveform(label, num, hearing)], num, hearing) for label in (first, second)]
    return SwapPair(
        frame=drawn.frame,
        labels=(first, second),
        masks=(drawn.masks[0], drawn.masks[1]),
        audio_a=mixtures[0].audio,
        audio_b=mixtures[1].audio,
    )


def render_single_waveform(label: str, split: str, seed: int, seconds: float = 3.0) -> Array:
    """Render one class's sound alone, without noise, with an RMS of 0.1: [T] float32 at 22 050 Hz."""
    check_label(label)
    _, _, hearing = streams(split, seed, CLASSES.index(label), kind=2)
    return draw_waveform(label, round(seconds * RATE), hearing) * np.float32(0.1)


def render_single_object(
    label: str, split: str, seed: int, size: tuple[int, int] = (224, 224)
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Render one object of a class on a background: (frame [H, W, 3] uint8 RGB, its visible mask [H, W])."""
    check_label(label)
    _, look, _ = streams(split, seed, CLASSES.index(label), kind=3)
    drawn = draw_frame([label], size[1], size[0], look)
    return drawn.frame, drawn.masks[0]


def check_label(label: str) -> None:
    """Raise InputError for a label that is no class."""
    if label not in CLASSES:
        raise InputError(f"class {label!r} is not known: use one of {', '.join(CLASSES)}")
