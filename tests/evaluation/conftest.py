"""A localizer that really looks and listens, for scenes of coloured squares and pure tones in real files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from avgn.evaluation.canvas import area_average, box_mask
from avgn.runtime.arrays import Array
from avgn.runtime.bundle import BundleInfo
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.manifest import Box, Item, Manifest, Part, Source, read_manifest, write_manifest

CLASSES = ("bell", "drum", "flute", "horn")
COLOURS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220], [220, 220, 30]])
PITCHES = np.array([400.0, 900.0, 1700.0, 3000.0])
RATE = 16000


class ToneEngine:
    """The runtime's engine interface: the audio half measures the pitches, the image half finds the colours.

    `deaf` hears everything at once, so its maps ignore the sound; `narrow` refuses pictures of another width.
    """

    name = "tones"

    def __init__(self, *, deaf: bool = False, narrow: bool = False, **facts: Any) -> None:
        self.deaf = deaf
        self.narrow = narrow
        self.info = BundleInfo(
            **{
                "model": {},
                "classes": CLASSES,
                "sample_rate": RATE,
                "window_seconds": 0.5,
                "image_size": (112, 112),
                "grid": (7, 7),
                "thresholds": Thresholds(audio=(0.5,) * 4, visual=(0.5,) * 4),
                "variants": (),
                **facts,
            }
        )

    def run_audio(self, waveform: Array) -> dict[str, Array]:
        assert waveform.dtype == np.float32 and waveform.shape[1] == self.info.window_samples
        time = np.arange(waveform.shape[1]) / RATE
        level = 2 * np.abs(waveform @ np.exp(-2j * np.pi * time[:, None] * PITCHES)) / waveform.shape[1]
        heard = np.clip(level / 0.2, 0, 1).astype(np.float32)
        return {"sources": np.ones_like(heard)[..., None] if self.deaf else heard[..., None], "audio_prob": heard}

    def run_image(self, image: Array, sources: Array) -> dict[str, Array]:
        height, width = self.info.image_size
        pictures = image.shape[2] // width
        if image.dtype != np.uint8 or image.shape[1:] != (height, width * pictures, 3) or self.narrow and pictures != 1:
            raise ValueError(f"image must be uint8 [B, {height}, {width}, 3], got {list(image.shape)}")
        grid = (self.info.grid[0], self.info.grid[1] * pictures)
        apart = np.abs(image[:, None].astype(int) - COLOURS[:, None, None]).max(axis=-1)
        looks = np.stack([[area_average(one, grid) for one in frame] for frame in (apart < 60) * 1.0])
        seen = np.clip(looks.mean(axis=(2, 3)) * 100, 0, 1).astype(np.float32)
        return {"maps": (looks * sources[..., None]).astype(np.float32) - 0.5, "visual_prob": seen}


def tones(labels: Sequence[str], seconds: float, rate: int = RATE) -> Array:
    """The sum of the classes' pure tones, [T] float32."""
    time = np.arange(round(seconds * rate)) / rate
    pitches = [PITCHES[CLASSES.index(label)] for label in labels]
    return sum((0.2 * np.sin(2 * np.pi * pitch * time) for pitch in pitches), np.zeros(len(time))).astype(np.float32)


def picture(objects: Sequence[tuple[str, Box]], size: tuple[int, int] = (224, 224)) -> Array:
    """Coloured boxes on grey, [H, W, 3] uint8 RGB."""
    frame = np.full((*size, 3), 128, dtype=np.uint8)
    for label, box in objects:
        frame[box_mask([box], size)] = COLOURS[CLASSES.index(label)]
    return frame


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a scene holds: `sounding` and `silent` objects (label, box) and `hidden` labels that sound off-screen."""

    sounding: tuple[tuple[str, Box], ...] = ()
    silent: tuple[tuple[str, Box], ...] = ()
    hidden: tuple[str, ...] = ()
    rate: int = RATE
    video: str = ""

    def write(self, folder: Path, name: str) -> Item:
        import cv2

        frame, audio = folder / f"{name}.png", folder / f"{name}.wav"
        assert cv2.imwrite(str(frame), picture([*self.sounding, *self.silent])[..., ::-1])
        sound = tones([label for label, _ in self.sounding] + list(self.hidden), 0.8, self.rate)
        wavfile.write(audio, self.rate, (sound * 32767).astype(np.int16))
        sources = [Source(label=k, sounding=True, on_screen=True, boxes=(b,)) for k, b in self.sounding]
        sources += [Source(label=k, sounding=False, on_screen=True, boxes=(b,)) for k, b in self.silent]
        sources += [Source(label=k, sounding=True, on_screen=False) for k in self.hidden]
        return Item(
            id=name,
            sources=tuple(sources),
            split="test",
            dataset="tones",
            video=self.video or name,
            frame=frame,
            audio=audio,
        )


def write_scenes(folder: Path, scenes: Sequence[Scene], classes: Sequence[str] = CLASSES) -> Manifest:
    items = [scene.write(folder, f"scene{n:03d}") for n, scene in enumerate(scenes)]
    write_manifest(folder / "manifest.jsonl", classes, items)
    return read_manifest(folder / "manifest.jsonl")


def write_pairs(folder: Path, pairs: Sequence[Sequence[Scene]], classes: Sequence[str] = CLASSES) -> Manifest:
    """Items of several scenes side by side."""
    items = []
    for n, scenes in enumerate(pairs):
        each = [scene.write(folder, f"pair{n:03d}_{part}") for part, scene in enumerate(scenes)]
        sources = [replace(s, part=part) for part, item in enumerate(each) for s in item.sources]
        parts = [Part(frame=item.frame, audio=item.audio) for item in each if item.frame and item.audio]
        one = Item(
            id=f"pair{n:03d}", sources=tuple(sources), parts=tuple(parts), split="test", dataset="t", video=f"{n}"
        )
        items.append(one)
    write_manifest(folder / "pairs.jsonl", classes, items)
    return read_manifest(folder / "pairs.jsonl")


def random_scenes(count: int, seed: int) -> list[Scene]:
    """Two sounding objects and a silent one in fixed cells of a 2 x 2 layout, sometimes with an off-screen sound."""
    rng = np.random.default_rng(seed)
    scenes = []
    for n in range(count):
        labels = [CLASSES[k] for k in rng.permutation(4)]
        boxes: list[Box] = []
        for corner in rng.permutation(4)[:3]:
            x, y = 0.5 * (corner % 2) + rng.uniform(0, 0.15), 0.5 * (corner // 2) + rng.uniform(0, 0.15)
            boxes.append((x, y, x + rng.uniform(0.15, 0.34), y + rng.uniform(0.15, 0.34)))
        scenes.append(
            Scene(
                sounding=((labels[0], boxes[0]), (labels[1], boxes[1])),
                silent=((labels[2], boxes[2]),),
                hidden=(labels[3],) if n % 3 == 0 else (),
                rate=RATE if n % 2 else 22050,
            )
        )
    return scenes


def add_noise(engine: Any, seed: int, step: float = 0.1) -> Any:
    """The engine with noise on all it says, the same each time it is made; maps in steps, so that they have ties."""
    rng = np.random.default_rng(seed)
    listen, look = engine.run_audio, engine.run_image

    def run_audio(waveform: Array) -> dict[str, Array]:
        out = listen(waveform)
        noise = rng.normal(0, 0.4, out["audio_prob"].shape)
        return {**out, "audio_prob": np.clip(out["audio_prob"] + noise, 0, 1).astype(np.float32)}

    def run_image(image: Array, sources: Array) -> dict[str, Array]:
        out = look(image, sources)
        maps = out["maps"] + rng.normal(0, 0.3, out["maps"].shape)
        noise = rng.normal(0, 0.4, out["visual_prob"].shape)
        return {
            "maps": (np.round(maps / step) * step).astype(np.float32),
            "visual_prob": np.clip(out["visual_prob"] + noise, 0, 1).astype(np.float32),
        }

    engine.run_audio, engine.run_image = run_audio, run_image
    return engine


@pytest.fixture
def noisy() -> Callable[..., Any]:
    return add_noise


@pytest.fixture
def tone_engine() -> Callable[..., ToneEngine]:
    return ToneEngine


@pytest.fixture
def scene_type() -> type[Scene]:
    return Scene


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., Manifest]:
    def make(scenes: Sequence[Scene] | int, classes: Sequence[str] = CLASSES) -> Manifest:
        return write_scenes(tmp_path, random_scenes(scenes, 7) if isinstance(scenes, int) else scenes, classes)

    return make


@pytest.fixture
def make_pairs(tmp_path: Path) -> Callable[..., Manifest]:
    return lambda pairs: write_pairs(tmp_path, pairs)


@pytest.fixture
def sound() -> Callable[..., Array]:
    return tones


@pytest.fixture
def draw() -> Callable[..., Array]:
    return picture


@pytest.fixture
def with_video() -> Callable[[Manifest, str], Manifest]:
    """Every item of a manifest said to come from one video."""
    return lambda manifest, video: replace(manifest, items=tuple(replace(i, video=video) for i in manifest.items))
