"""What benchmarks.world measures on a talking clip, and the sheet of its scenes."""

from __future__ import annotations

import itertools
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avgn.demo import collage
from avgn.runtime import Localizer
from avgn.runtime.bundle import file_sha256
from avgn.runtime.manifest import Item, Manifest, Source
from avgn.scenes.encode import FPS, encode_video
from avgn.scenes.synth import RATE
from benchmarks.world_faces import inside_faces
from benchmarks.world_sheet import Scene, is_right, look, write_sheet

SECONDS = 2


@pytest.fixture(scope="module")
def world() -> Localizer:
    return Localizer.load("world", "onnxruntime", threads=1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the demo's photographs, with a voice."""
    path = tmp_path_factory.mktemp("clip") / "talk.mp4"
    sound = collage.read_recording("speech.flac")[: SECONDS * RATE]
    encode_video(path, itertools.islice(collage.draw_frames(), SECONDS * FPS), sound, collage.SIZE)
    return path


def faces_at(clip: Path, label: str) -> dict[str, Any]:
    """What a detector would write that takes this thing for a face."""
    track = next(source.track for source in collage.true_sources() if source.label == label)
    assert track is not None
    frames = [[number / FPS, [track[number]]] for number in range(SECONDS * FPS)]
    return {"detector": "none", "clips": {clip.name: {"sha256": file_sha256(clip), "frames": frames}}}


@pytest.mark.parametrize(("label", "percent"), [("speech", 100.0), ("cat", 0.0)])
def test_a_voice_counts_where_its_peak_lies_inside_a_face(
    world: Localizer, clip: Path, label: str, percent: float
) -> None:
    found = inside_faces(world, clip, faces_at(clip, label))
    assert found["speaking_seconds"] == SECONDS
    assert found["inside_a_face_percent"] == found["inside_the_largest_face_percent"] == percent


def test_faces_of_another_clip_are_refused(world: Localizer, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / clip.name
    other.write_bytes(clip.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="the faces are not of"):
        inside_faces(world, other, faces_at(clip, "speech"))


def test_a_scene_is_right_when_exactly_what_sounds_is_said(world: Localizer, tmp_path: Path) -> None:
    scene = look(world, write_item(tmp_path))
    assert is_right(scene) and [source.label for source in scene.result.sources] == ["dog"]
    assert not is_right(with_source(scene, sounding=False))
    assert not is_right(with_source(scene, boxes=((0.0, 0.0, 0.01, 0.01),)))


def test_the_sheet_is_a_picture_of_pairs(world: Localizer, tmp_path: Path) -> None:
    manifest = Manifest(classes=world.bundle.classes, items=(write_item(tmp_path),), path=tmp_path / "m.jsonl")
    write_sheet(world.engine, [manifest], tmp_path / "sheet.png", count=2)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and 240 <= sheet.shape[0] < 260 and sheet.std() > 20


def write_item(folder: Path) -> Item:
    """The demo's dog with its bark."""
    (folder / "dog.png").write_bytes(cv2.imencode(".png", collage.read_panel("dog")[..., ::-1])[1].tobytes())
    with wave.open(str(folder / "dog.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "NONE"))
        file.writeframes((collage.read_recording("dog.flac") * 32767).astype(np.int16).tobytes())
    box = next(panel.box for panel in collage.PANELS if panel.label == "dog")
    source = Source(label="dog", sounding=True, on_screen=True, boxes=(box,))
    return Item(
        id="dog",
        split="test",
        dataset="demo",
        video="dog",
        sources=(source,),
        frame=folder / "dog.png",
        audio=folder / "dog.wav",
    )


def with_source(scene: Scene, **changed: Any) -> Scene:
    item = replace(scene.item, sources=(replace(scene.item.sources[0], **changed),))
    return replace(scene, item=item)
