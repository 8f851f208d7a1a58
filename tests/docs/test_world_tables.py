"""The tables of the world model's card, from a record as benchmarks.world writes it and from none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.tools import tables, world_tables

SCORES = {"CIoU@0.3": 70.0, "CAP": 60.0, "F1@0.3": 50.0, "false sources per image": 0.2}
RECORD: dict[str, Any] = {
    "machine": {"processor": "a processor", "cores": 2},
    "backend": "onnxruntime",
    "megabytes": 15.37,
    "scenes": [
        {"items": 300, **{mode: {"metrics": SCORES, "floor": {"CAP": 25.0}} for mode in ("given", "predicted")}},
        {
            "items": 200,
            **{mode: {"metrics": SCORES | {"CAP": 70.0}, "floor": {"CAP": 35.0}} for mode in ("given", "predicted")},
        },
    ],
    "sound_decides": {"percent": 91.25, "pairs": 8},
    "per_class": {
        "big cat": {"sources": 9, "given": 77.8, "predicted": 44.4, "sound_decides": 90.0},
        "bee": {"sources": 2, "given": 50.0, "predicted": 0.0},
    },
    "confused": {"bee as fan": 3, "bee as drill": 1},
    "no_source_in_noise_percent": {"all": 99.3, "silence": 100.0, "hum": 94.3, "named": {"hum: cello": 3}},
    "talking": [
        {
            "clip": "talk.mp4",
            "speech_percent": 100.0,
            "faces": {"speaking_seconds": 8, "inside_a_face_percent": 87.5},
        }
    ],
    "one_core_ms": {"image": {"p50": 14.4}, "audio hop": {"p50": 2.26}},
    "start": {"seconds": 1.04, "megabytes": 210.4},
}


def test_rows_are_means_over_the_manifests_beside_their_floors() -> None:
    head, rows = world_tables.reached(RECORD)
    said = {row[0]: row[1:] for row in rows}
    assert head == ("a processor, 2 cores, onnxruntime", "", "floor")
    assert said["scenes"] == ("500", "") and said["adaptive, classes given: CAP"] == ("65.0", "30.0")
    assert said["adaptive, classes predicted: false sources per image"] == ("0.20", "")
    assert said["the same, the worst of them (hum), percent"] == ("94.3", "")
    assert said["of its 8 speaking seconds, with the peak inside a face, percent"] == ("87.5", "")
    assert said["bundle, MB"] == ("15.4", "")


def test_every_class_has_a_row_with_what_it_is_taken_for() -> None:
    _, rows = world_tables.classes(RECORD)
    assert rows == [("big cat", "9", "78", "44", "90", ""), ("bee", "2", "50", "0", "", "fan, drill")]


def test_a_checkout_without_the_measurement_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "not measured yet" in tables.filled("<!-- table: world -->\n<!-- end -->")
    (tmp_path / "world.json").write_text(json.dumps(RECORD))
    assert "| bee | 2 | 50 | 0 |  | fan, drill |" in tables.filled("<!-- table: world classes -->\n<!-- end -->")
