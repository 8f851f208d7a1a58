"""The demo, the first thing that anyone sees, says what is true."""

from __future__ import annotations

import json
from pathlib import Path

import cv2

from avgn.demo import SCENE, run_demo
from avgn.scenes import SceneConfig
from avgn.scenes.video import write_scene_video

SECONDS, SEED = 12.0, 7
# an audio window lasts a second, and its centre is at the frame: a change shows half a second before to half behind
LATE = 0.6


def test_the_demo_says_what_is_true_and_nothing_else(tmp_path: Path) -> None:
    lines = run_demo(tmp_path / "out", bundle="tiny", seconds=SECONDS, seed=SEED)
    assert not any("off-screen" in line for line in lines)
    config: SceneConfig = SCENE
    truth = write_scene_video(tmp_path / "again.mp4", seed=SEED, seconds=SECONDS, split="test", config=config)
    sources = {source.label: source for source in truth.sources}
    said = sounding = found = inside = 0
    for line in map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines()):
        time, frame = line["time"], line["frame"]
        heard = {source["label"]: source for source in line["sources"]}
        for label, source in heard.items():
            intervals = sources[label].intervals or ()
            assert any(start - LATE <= time <= end + LATE for start, end in intervals), (time, label)
            assert source["on_screen"] and source["certainty"] >= 0.5
            box = (sources[label].track or ())[frame]
            assert box is not None
            x, y = source["peak"]
            said, inside = said + 1, inside + (box[0] <= x <= box[2] and box[1] <= y <= box[3])
        for label, source_truth in sources.items():
            if any(start <= time <= end for start, end in source_truth.intervals or ()):
                sounding, found = sounding + 1, found + (label in heard)
    assert found >= 0.97 * sounding > 0 and inside >= 0.97 * said
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet is not None and sheet.shape == (4 * 360, 3 * 640, 3)
