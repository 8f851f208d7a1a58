"""Makes procedural scenes: pictures, sounds and videos of invented things with exact truth.

numpy and OpenCV suffice; writing videos needs PyAV.
"""

from avgn.scenes.classes import CLASSES
from avgn.scenes.scene import (
    Scene,
    SceneConfig,
    SceneObject,
    SwapPair,
    render_scene,
    render_single_object,
    render_single_waveform,
    render_swap,
)
from avgn.scenes.video import VideoTruth, write_scene_video
from avgn.scenes.writer import synthesize, write_wav

__all__ = [
    "CLASSES",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "SwapPair",
    "VideoTruth",
    "render_scene",
    "render_single_object",
    "render_single_sound",
    "render_single_waveform",
    "render_swap",
    "synthesize",
    "write_scene_video",
    "write_wav",
]

# deprecated: the name until version 0.1
render_single_sound = render_single_waveform
