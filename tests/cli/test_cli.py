"""The command line: exact exit statuses and one-sentence errors, and the whole path in commands."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from avgn.checkpoint import save_model
from avgn.cli import COMMANDS
from avgn.config import preset
from avgn.model import build_model
from avgn.runtime.manifest import read_manifest
from avgn.scenes import CLASSES, SceneConfig, synthesize
from avgn.scenes.video import write_scene_video
from tests.commands import ENVIRONMENT, avgn, forked, refused


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "scene.mp4"
    write_scene_video(path, seed=3, seconds=2.0, config=SceneConfig(split="test", sources=(1, 1), silent=(0, 0)))
    return path


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(
        tmp_path_factory.mktemp("stills") / "set", scenes=6, config=SceneConfig(split="test"), seed=1, jobs=1
    )


def test_unknown_commands_and_options() -> None:
    assert "unknown command 'dance'" in refused("dance")
    assert "see avgn localize --help" in refused("localize", "tiny")
    assert "see avgn export --help" in refused("export", "a", "b", "--bogus")


def test_values_of_another_kind_are_named_in_words(tmp_path: Path) -> None:
    said = refused("serve", "tiny", "--port", "1.5")
    assert "--port must be a whole number, got '1.5': see avgn serve --help" in said
    assert "--start must be a number, got 'nan': see" in refused("localize", "tiny", "a.mp4", "--start", "nan")
    (tmp_path / "c.yaml").write_text("epochs: many\n")
    said = refused("train", "d", "--config", tmp_path / "c.yaml")
    assert "--config: --epochs must be a whole number, got 'many': see avgn train --help" in said
    assert said.count("--help") == 1


def test_synthesize_train_export_evaluate_localize_in_commands(tmp_path: Path, video: Path) -> None:
    data = forked("synthesize", tmp_path / "data", "--scenes", 40, "--seed", 4, "--jobs", 1)
    assert data.returncode == 0 and Path(data.stdout.strip()) == tmp_path / "data" / "manifest.jsonl"
    small = ("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1")
    output = tmp_path / "run"
    done = forked(
        *("train", data.stdout.strip(), "--output", output, "--preset", "avgn-tiny", "--steps", 3, "--batch-size", 8),
        *("--visual-weights", "random", "--validation", data.stdout.strip(), "--threads", 1, *small),
    )
    assert done.returncode == 0, done.stderr
    exported = forked("export", output, tmp_path / "bundle")
    assert exported.returncode == 0 and "max_abs_maps" in exported.stdout, exported.stderr
    for model in (output, tmp_path / "bundle"):
        scored = forked(
            *("evaluate", model, data.stdout.strip(), "--bootstrap", 0, "--json", tmp_path / "scores.json"),
        )
        assert scored.returncode == 0, scored.stderr
        results = json.loads((tmp_path / "scores.json").read_text())
        assert {(r["protocol"], r["classes"]) for r in results} == {
            (p, c) for p in ("source-wise", "frame-wise", "adaptive") for c in ("given", "predicted")
        }
    found = forked(
        *("localize", tmp_path / "bundle", video, "--output", tmp_path / "o.mp4", "--json", tmp_path / "r.jsonl"),
    )
    assert found.returncode == 0 and "real-time factor" in found.stdout, found.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(lines) == 50 and (tmp_path / "o.mp4").stat().st_size > 1000


def test_a_config_file_sets_options(tmp_path: Path, stills: Path) -> None:
    (tmp_path / "c.yaml").write_text("preset: avgn-huge\nsteps: 1\n")
    message = refused("train", "--config", tmp_path / "c.yaml", stills, "--output", tmp_path / "o")
    assert "preset 'avgn-huge' is not known" in message


def test_bad_manifests_are_named_by_line(tmp_path: Path, stills: Path) -> None:
    header, first, *rest = stills.read_text().splitlines()
    item = json.loads(first)
    item["sources"] = [{"label": CLASSES[0], "sounding": True, "on_screen": True, "boxes": [[0.1, 0.1, 0.5, 0.5]]}]

    def write(name: str, second: str) -> Path:
        path = stills.parent / name
        path.write_text("\n".join([header, second, *rest]) + "\n")
        return path

    def changed(**values: object) -> str:
        return json.dumps(item | values)

    source = item["sources"][0]
    outside = changed(sources=[source | {"boxes": [[0.5, 0.5, 1.5, 0.9]]}])
    for name, line, expected in (
        ("bad-line.jsonl", "{nonsense", "line 2: not valid JSON"),
        ("unknown.jsonl", changed(sources=[source | {"label": "theremin"}]), "line 2: class 'theremin' is not in"),
        ("outside.jsonl", outside, "line 2: box [0.5, 0.5, 1.5, 0.9] lies outside the image"),
        ("missing.jsonl", changed(frame="frames/none.jpg"), "line 2: file"),
    ):
        assert expected in refused("evaluate", "tiny", write(name, line))
    assert "is empty" in refused("evaluate", "tiny", _empty(tmp_path / "empty.jsonl"))


def _empty(path: Path) -> Path:
    path.write_text("")
    return path


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path, stills: Path) -> None:
    small = {"width_visual": 4, "width_audio": 4, "dim": 16, "heads": 4, "depth": 1}
    save_model(build_model(preset("avgn-tiny", classes=("a", "b"), **small)), tmp_path / "c")
    assert "class" in refused("evaluate", tmp_path / "c", stills)


def test_bad_videos_leave_nothing_behind(tmp_path: Path, video: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video " * 100)
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:2000])
    before = sorted(tmp_path.iterdir())
    for name in ("none.mp4", "empty.mp4", "text.mp4", "cut.mp4"):
        outputs = ("--output", tmp_path / "o.mp4", "--json", tmp_path / "r.jsonl")
        assert name in refused("localize", "tiny", tmp_path / name, *outputs)
        assert sorted(tmp_path.iterdir()) == before
    assert "can't be written" in refused("localize", "tiny", video, "--json", tmp_path / "text.mp4" / "r.jsonl")


def test_synthesize_refuses_what_it_cannot_render(tmp_path: Path) -> None:
    assert "--sources must be N or MIN-MAX" in refused("synthesize", tmp_path / "a", "--scenes", 1, "--sources", "many")
    assert "--size must be" in refused("synthesize", tmp_path / "a", "--scenes", 1, "--size", "big")
    assert "split" in refused("synthesize", tmp_path / "a", "--scenes", 1, "--split", "holdout")
    assert not (tmp_path / "a").exists()


def test_ctrl_c_leaves_a_playable_overlay(tmp_path: Path) -> None:
    import av

    long = tmp_path / "long.mp4"
    write_scene_video(long, seed=5, seconds=20.0, config=SceneConfig(split="test", sources=(1, 1), silent=(0, 0)))
    command = [sys.executable, "-m", "avgn", "localize", "tiny", str(long), "--output", str(tmp_path / "o.mp4")]
    process = subprocess.Popen(
        [*command, "--json", str(tmp_path / "r.jsonl"), "--threads", "1"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 2000 for path in tmp_path.glob("r.jsonl.*.partial")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "interrupted" in message
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert 0 < frames < 500
    assert not list(tmp_path.glob("*.partial"))


def test_demo_and_doctor_run(tmp_path: Path) -> None:
    done = avgn("demo", "--bundle", "tiny", "--output", tmp_path / "demo", "--seconds", 4)
    assert done.returncode == 0, done.stderr
    for name in ("scene.mp4", "overlay.mp4", "results.jsonl", "sheet.png"):
        assert (tmp_path / "demo" / name).stat().st_size > 500
    assert "real-time factor" in done.stdout and "truth" in done.stdout
    doctor = avgn("doctor")
    assert doctor.returncode == 0 and "engine onnxruntime: audio half" in doctor.stdout, doctor.stderr


def test_a_synthesized_set_reads_back(stills: Path) -> None:
    assert read_manifest(stills).classes == CLASSES


COMMANDS_WITH_OPTIONS = [
    *([name] for name in COMMANDS if name != "figure"),
    ["figure", "qualitative"],
    ["figure", "embeddings"],
]


@pytest.mark.parametrize("command", COMMANDS_WITH_OPTIONS, ids=" ".join)
def test_help_explains_every_option(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import jsonargparse

    found: list[Any] = []

    def keep(parser: Any, *_: Any, **__: Any) -> None:
        found.append(parser)
        raise SystemExit(0)

    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", keep)
    with pytest.raises(SystemExit):
        name, *kind = command
        module, _, function = COMMANDS[name].partition(":")
        getattr(importlib.import_module(module), function)(kind)
    (parser,) = found
    assert [action.dest for action in parser._actions if not action.help] == []
