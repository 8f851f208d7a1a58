from __future__ import annotations

from pathlib import Path

import pytest

from avgn.scenes import SceneConfig
from avgn.scenes.video import write_scene_video

CONFIG = SceneConfig(split="test", sources=(1, 1), silent=(0, 0))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two seconds with sound, to be copied."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_scene_video(path, seed=3, seconds=2.0, config=CONFIG)
    return path
