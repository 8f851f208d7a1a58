"""Collections of small scenes, and the rows that a run gives of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from avgn.runtime.manifest import Item
from tests.runtime.clips import Scene

CLIPS = 200


RATE = 44_100


Row = dict[str, Any]


SHOWN = Scene(seen={1: (0.3, 0.6)}, heard=(1,))


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: avgn[cluster]")


needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed: avgn[cluster]"
)


def draw_scene(n: int) -> Scene:
    """Scene n of the collection: 0 to 2 squares, 0 to 2 tones."""
    rng = np.random.default_rng(n)
    seen = {int(k): (0.25 + 0.5 * i, float(rng.uniform(0.3, 0.7))) for i, k in enumerate(rng.permutation(3)[: n % 3])}
    return Scene(seen=seen, heard=tuple(int(k) for k in rng.permutation(3)[: (n // 3) % 3]))


def write_item(folder: Path, name: str, scene: Scene) -> Item:
    frame, audio = folder / f"{name}.png", folder / f"{name}.wav"
    assert cv2.imwrite(str(frame), scene.frame()[..., ::-1])
    wavfile.write(audio, RATE, (32767 * scene.sound(1.2, RATE)[:, 0]).astype(np.int16))
    return Item(id=name, sources=(), split="test", dataset="squares", video=name, frame=frame, audio=audio)


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(found: list[Row], expected: list[Row]) -> None:
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["state"] == other["state"]
        assert [s["label"] for s in one["sources"]] == [s["label"] for s in other["sources"]]
        for a, b in zip(one["sources"], other["sources"], strict=True):
            assert a["on_screen"] == b["on_screen"]
            for key in ("audio_prob", "visual_prob", "peak", "box"):
                assert a[key] == (None if b[key] is None else pytest.approx(b[key], abs=1.5e-5)), (one["id"], key)
