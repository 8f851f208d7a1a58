"""Narrow models: encoders that start from shared weights, rows of several seeds, and several rows at a time."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avgn.config import preset
from avgn.data.batch import collate
from avgn.data.dataset import AudioVisualDataset
from avgn.encoders import load_audio_weights, load_visual_weights
from avgn.model import build_model
from avgn.reproduce import read_recipe
from avgn.reproduce.pretrain import PretrainSpec, pretrain
from avgn.reproduce.recipe import FOLDER
from avgn.reproduce.rows import rows_of
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import read_manifest
from avgn.scenes import SceneConfig, synthesize
from tests.commands import avgn

SMALL = "image_size: [64, 64], width_visual: 4, width_audio: 4, dim: 16, depth: 1"
SIZES: dict[str, Any] = {
    "image_size": (64, 64),
    "width_visual": 4,
    "width_audio": 4,
    "dim": 16,
    "heads": 4,
    "depth": 1,
    "window_seconds": 0.3,
}


def test_pretrained_encoders_tell_classes_apart_and_are_what_training_starts_from(tmp_path: Path) -> None:
    scenes = SceneConfig(split="train", sources=(1, 1), silent=(0, 0), off_screen=0.0, size=(96, 96), seconds=0.55)
    manifest = read_manifest(synthesize(tmp_path / "solos", scenes=24, config=scenes, seed=3))
    # with one thread, oneDNN's bf16 convolution of a map 2 wide to one 1 wide reads memory that was never written
    config = preset("avgn-tiny", classes=manifest.classes, **SIZES | {"window_seconds": 0.45})
    spec = PretrainSpec(importer="", root="", visual_steps=60, audio_steps=120, batch_size=8, learning_rate=5e-3)
    weights = tmp_path / "weights"
    weights.mkdir()
    pretrain(config, manifest, spec, weights, 0)
    first = (weights / "visual.safetensors").read_bytes(), (weights / "audio.safetensors").read_bytes()
    pretrain(config, manifest, spec, weights, 0)
    assert first == ((weights / "visual.safetensors").read_bytes(), (weights / "audio.safetensors").read_bytes())

    # what was learned: features of one class lie nearer to each other than those of random weights do
    data = AudioVisualDataset(manifest, config, train=False)
    batch = collate([data[(0, n)] for n in range(len(data))], len(manifest.classes))
    labels = batch.labels.sounding.argmax(dim=1)
    model = build_model(config).eval()

    def separation() -> float:
        with torch.no_grad():
            features = model.audio_encoder.backbone(model.frontend(batch.waveform)).amax(dim=(2, 3))
        cosine = torch.nn.functional.cosine_similarity(features[:, None], features[None, :], dim=2)
        same = labels[:, None] == labels[None, :]
        off = ~torch.eye(len(labels), dtype=torch.bool)
        return float(cosine[same & off].mean() - cosine[~same].mean())

    before = separation()
    load_visual_weights(model.visual_encoder, str(weights / "visual.safetensors"))
    load_audio_weights(model.audio_encoder, str(weights / "audio.safetensors"))
    assert separation() > before + 0.05
    for name, value in load_file(weights / "visual.safetensors").items():
        torch.testing.assert_close(model.visual_encoder.backbone.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"audio weights .* don't fit"):
        load_audio_weights(model.audio_encoder, str(weights / "visual.safetensors"))
    with pytest.raises(ValueError, match=r"audio weights none.pth don't exist: give a ResNet-18 state dict$"):
        load_audio_weights(model.audio_encoder, "none.pth")
    with pytest.raises(InputError, match="has 4 items of one source, fewer than a batch of 8"):
        pretrain(config, replace(manifest, items=manifest.items[:4]), spec, weights, 0)


def scores(value: float | None, low: float, high: float) -> dict[str, Any]:
    result = {
        "protocol": "adaptive",
        "classes": "given",
        "maps": "per class",
        "items": 3,
        "metrics": {"CAP": value, "PIAP": None},
        "ci95": {"CAP": [low, high]},
        "floor": {"CAP": 1.0},
        "ceiling": {"CAP": 9.0},
    }
    return {"seconds": {"training": 1.0, "scoring": 1.0}, "results": [result]}


def test_a_row_of_several_seeds_is_their_mean() -> None:
    runs = {0: scores(2.0, 1.0, 3.0), 1: scores(4.0, 2.0, 5.0), 2: scores(6.0, 3.0, 7.0)}
    (row,) = rows_of("A", None, runs, {"AP": "CAP", "gone": "PIAP"})
    assert row["values"] == {"AP": 4.0, "gone": None} and row["ci95"]["AP"] == [2.0, 5.0]
    assert row["std"]["AP"] == pytest.approx(np.std([2, 4, 6], ddof=1)) and row["std"]["gone"] is None
    assert {seed: values["AP"] for seed, values in row["seeds"].items()} == {"0": 2.0, "1": 4.0, "2": 6.0}
    assert rows_of("A", None, {0: runs[0]}, {"AP": "CAP"})[0]["std"]["AP"] is None
    with pytest.raises(InputError, match="metric 'CAPP' is in no result of row A: use some of CAP, PIAP"):
        rows_of("A", None, runs, {"CAP": "CAPP"})


WRONG: list[tuple[str, str, str]] = [
    ("neither: 3,", "none: 3,", "narrow names the row 'none'"),
    ("neither: 3,", "neither: 0,", "seeds of neither must be at least 1, got 0"),
    ("sets: [MUSIC-Duet]", "sets: [MUSIC]", "narrow names the set 'MUSIC'"),
    ("pretrain: {importer", "pretrain: {imported", "entry 'imported' is not known"),
    ("  scenes: 4000", "  scene: 4000", "entry 'scene' is not known"),
    ("holdout: 0.05", "holdout: x", "holdout must be a number, got 'x'"),
    ("holdout: 0.05", "holdout: yes", "holdout must be a number, got True"),
    ('title: "Table 2: localization from mixtures"', "title:", "title must be text, got None"),
    ("  sets: [MUSIC-Duet]", "  sets: MUSIC-Duet", "sets must be a list, got 'MUSIC-Duet'"),
    ("AVGN: 3}", "AVGN: x}", "seeds must be a mapping of names to values"),
    ("root: MUSIC}", "root: MUSIC, visual_steps: 0}", "visual_steps of pretraining must be above 0, got 0"),
    ("root: MUSIC}", "root: MUSIC, visual_steps: x}", "visual_steps must be a whole number, got 'x'"),
    ("root: MUSIC}", "root: /somewhere/MUSIC}", "root must be a folder's name below --data, got '/somewhere/MUSIC'"),
    ("root: MUSIC, split: train}", "root: .., split: train}", "root must be a folder's name below --data, got '..'"),
    ("name: HardPos", "name: mix and-localize", "'Mix-and-Localize' and 'mix and-localize' share a folder"),
    ("name: HardPos", "name: AVGN-seed1", "a row called 'AVGN-seed1' would use another's folder"),
    ("name: VGGSound-Duet", "name: pretrained", "a set called 'pretrained' would use another's folder"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_recipes_are_checked(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (FOLDER / "table2.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "own.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        read_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.soak
def test_narrow_rows_of_several_seeds_run_two_at_a_time_from_the_same_weights(tmp_path: Path) -> None:
    text = (FOLDER / "table2.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("model: {image_size: [96, 96], width_visual: 16, width_audio: 8, dim: 64,", f"model: {{{SMALL},"),
        ("steps: 400", "steps: 2"),
        ("batch_size: 32", "batch_size: 8"),
        ("root: MUSIC}", "root: MUSIC, visual_steps: 2, audio_steps: 2, batch_size: 8}"),
        ("scenes: 4000", "scenes: 24"),
        ("test_scenes: 300", "test_scenes: 6"),
        ("neither: 3,", "neither: 2,"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    done = avgn(
        *("reproduce", tmp_path / "own.yaml", "--rows", "neither,LVS", "--bootstrap", 0),
        *("--output", out, "--parallel", 2),
    )
    assert done.returncode == 0, done.stderr
    assert "neither (2 seeds)" in done.stdout
    (found,) = json.loads((out / "outcome.json").read_text())["sets"]
    assert found["training"]["audio_weights"] == "audio.safetensors" and found["training"]["steps"] == 2
    assert "system" not in found["model"] and {row["row"]: row["model"]["system"] for row in found["rows"]} == {
        "neither": "avgn",
        "LVS": "lvs",
    }
    assert {row["row"]: list(row["seeds"]) for row in found["rows"]} == {"neither": ["0", "1"], "LVS": ["0"]}
    kept = {path.parent.name for path in out.glob("music-duet/*/scores.json")}
    assert kept == {"neither", "neither-seed1", "lvs"} and (out / "pretrained" / "visual.safetensors").is_file()
