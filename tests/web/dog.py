"""A dog before the camera: four photographs of the demo, of which its recording belongs to one."""

from __future__ import annotations

from pathlib import Path

from avgn.demo import collage
from avgn.runtime.manifest import Box
from avgn.scenes.synth import RATE
from tests.web import browser

WINDOW = {"width": 1280, "height": 800}


def write_devices(folder: Path) -> tuple[Path, Path, Box]:
    """Write what the browser's camera and microphone play; returns both files and where the dog is, in parts of the
    picture's sides."""
    dog = next(source for source in collage.true_sources() if source.label == "dog")
    assert dog.track is not None and dog.track[0] is not None
    # photographs of a dog and of three things that could sound; the recording is the dog's
    camera = browser.write_camera(folder / "photographs.y4m", next(collage.draw_frames()))
    microphone = browser.write_microphone(folder / "dog.wav", collage.read_recording("dog.flac"), RATE)
    return camera, microphone, dog.track[0]
