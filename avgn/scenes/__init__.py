"""Procedural scenes: pictures, sounds and videos of made-up things with exact truth; needs numpy and OpenCV only."""

from avgn.scenes.scene import (
    CLASSES,
    Scene,
    SceneConfig,
    SceneObject,
    SwapPair,
    render_scene,
    render_single_object,
    render_single_sound,
    render_swap,
)
from avgn.scenes.writer import synthesize, write_wav

__all__ = [
    "CLASSES",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "SwapPair",
    "render_scene",
    "render_single_object",
    "render_single_sound",
    "render_swap",
    "synthesize",
    "write_wav",
]
