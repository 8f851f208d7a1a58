"""Figures: what they show, their numbers, their formats, and every bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avgn.checkpoint import load_model, save_model
from avgn.cli import main
from avgn.config import preset
from avgn.engine import TorchEngine
from avgn.model import build_model
from avgn.runtime import InputError
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import SceneConfig, synthesize
from tests.commands import ENVIRONMENT, ROOT, forked
from tests.hostile.web_attacks import many_scans, two_headers

pytest.importorskip("matplotlib", reason="matplotlib is not installed: avgn[figures]")

CHECKPOINT = ROOT / "recipes" / "checkpoint"
MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills") / "set"
    return synthesize(folder, scenes=24, config=SceneConfig(split="test", off_screen=0.0), seed=1, jobs=1)


@pytest.fixture(scope="module")
def manifest(stills: Path) -> Manifest:
    return read_manifest(stills)


def shown(manifest: Manifest) -> list[str]:
    return [item.id for item in manifest.items if any(s.sounding and s.on_screen for s in item.sources)]


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_qualitative_in_every_format_and_reproducible(stills: Path, tmp_path: Path, kind: str) -> None:
    from avgn.cli.options import load_engine
    from avgn.figures.qualitative import draw_qualitative

    engines = {"AVGN": load_engine("tiny")}
    manifest = read_manifest(stills)
    first = draw_qualitative(engines, manifest, tmp_path / f"a.{kind}", count=2, seed=3)
    assert draw_qualitative(engines, manifest, tmp_path / f"b.{kind}", count=2, seed=3) == first
    assert len(first) == 2 and set(first) <= set(shown(manifest))
    data = (tmp_path / f"a.{kind}").read_bytes()
    assert data.startswith(MAGIC[kind]) and len(data) > 5000
    assert data == (tmp_path / f"b.{kind}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", f"b.{kind}"]


def test_qualitative_shows_each_source_by_each_method(manifest: Manifest, tmp_path: Path) -> None:
    from avgn.cli.options import load_engine
    from avgn.figures.qualitative import draw_qualitative

    name = next(i.id for i in manifest.items if len({s.label for s in i.sources if s.sounding and s.on_screen}) == 2)
    names = ("tiny", str(CHECKPOINT))
    sizes = {}
    for columns in (1, 2):
        engines = {f"method {n}": load_engine(path) for n, path in enumerate(names[:columns])}
        draw_qualitative(engines, manifest, tmp_path / f"{columns}.png", items=[name])
        image = cv2.imread(str(tmp_path / f"{columns}.png"))
        assert image is not None
        sizes[columns] = image.shape[:2]
    # a column more, and the same rows
    assert sizes[2][1] - sizes[1][1] == pytest.approx(242, abs=8) and sizes[2][0] == pytest.approx(sizes[1][0], abs=4)
    # the checkpoint's column shows what the bundle's shows
    image = cv2.imread(str(tmp_path / "2.png"))
    assert image is not None
    top, step, right = 60, 242, image.shape[1] - 8
    one, other = image[top:, right - 2 * step + 12 : right - step], image[top:, right - step + 12 : right]
    assert np.abs(one.astype(int) - other).mean() < 3 < np.abs(image[top:, : other.shape[1]].astype(int) - other).mean()


def test_qualitative_in_a_command(stills: Path, manifest: Manifest, tmp_path: Path) -> None:
    name, output = shown(manifest)[0], tmp_path / "o.png"
    done = forked("figure", "qualitative", stills, "--model", "AVGN=tiny", "--output", output, "--items", name)
    assert done.returncode == 0 and done.stdout == f"items {name}\n{output}\n", done.stderr
    assert "qualitative MANIFEST" in forked("figure", "--help").stdout


def test_heat_is_where_the_model_looks(manifest: Manifest) -> None:
    from avgn.cli.options import load_engine
    from avgn.figures import qualitative

    item = next(item for item in manifest.items if item.id == shown(manifest)[0])
    engine = load_engine("tiny")
    picture = qualitative._show(item, manifest, {"tiny": engine})
    assert max(picture.rgb.shape[:2]) == qualitative.SHOWN_PIXELS
    for row in picture.rows:
        heat = row.heat["tiny"]
        assert heat.shape == row.mask.shape == picture.rgb.shape[:2]
        assert (heat.min(), heat.max()) == (0, 1)
        maps = qualitative._maps(engine, item)[row.index]
        y, x = (np.array(np.unravel_index(heat.argmax(), heat.shape)) + 0.5) / heat.shape
        at, near = np.array(np.unravel_index(maps.argmax(), maps.shape)), np.array([y, x]) * maps.shape
        assert np.abs(near - at - 0.5).max() < 0.75


def test_heat_of_maps_without_names_is_matched(manifest: Manifest) -> None:
    from avgn.figures import qualitative

    maps = np.zeros((2, 7, 7), np.float32)
    maps[0, 5, 5] = maps[1, 1, 1] = 1
    masks = np.zeros((3, 70, 70), dtype=bool)
    masks[0, :30, :30] = masks[1, 40:, 40:] = masks[2, :10, 60:] = True
    first, second, none = qualitative._heat(maps, "matched", [3, 5, 7], masks)
    assert first[masks[0]].max() == second[masks[1]].max() == 1
    assert first[masks[1]].max() == second[masks[0]].max() == none.max() == 0

    engine = TorchEngine(build_model(preset("avgn-tiny", classes=manifest.classes, system="mix-and-localize")))
    item = next(i for i in manifest.items if len({s.label for s in i.sources if s.sounding and s.on_screen}) == 2)
    one, other = qualitative._show(item, manifest, {"mix": engine}).rows
    assert not np.array_equal(one.heat["mix"], other.heat["mix"])


def test_embeddings_are_those_of_the_sources(manifest: Manifest) -> None:
    import torch

    from avgn.figures.embeddings import collect_embeddings
    from avgn.model import AVGN
    from avgn.runtime.reading import read_clip

    model = load_model(CHECKPOINT)
    assert isinstance(model, AVGN)
    found = collect_embeddings(model, manifest)
    pairs = [
        (item, manifest.classes.index(label))
        for item in manifest.items
        for label in sorted({s.label for s in item.sources if s.sounding and s.on_screen}, key=manifest.classes.index)
    ]
    assert found.labels.tolist() == [k for _, k in pairs]
    item, k = pairs[5]
    assert item.audio is not None
    config = model.config
    clip = read_clip(item.audio, config.sample_rate, round(config.sample_rate * config.window_seconds))
    with torch.inference_mode():
        expected = model.encode_audio(torch.from_numpy(clip)[None]).embedding[0, k].numpy()
    np.testing.assert_allclose(found.audio[5], expected, atol=1e-4)
    # what presence is read from is what is drawn
    with torch.inference_mode():
        logits = model.visual_presence(torch.from_numpy(found.visual))[:, 0]
    assert (logits.sigmoid() > 0.3).float().mean() > 0.7


def test_silhouettes_tell_clusters_from_noise() -> None:
    from avgn.figures.embeddings import Embeddings, silhouettes

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    clusters = np.eye(8)[labels] + 0.05 * rng.normal(size=(60, 8))
    noise = rng.normal(size=(60, 8))
    gone = np.where(labels[:, None] == 0, noise, np.nan)
    scores = silhouettes(
        Embeddings(labels=labels, audio=clusters, visual=noise, control_audio=noise, control_visual=gone)
    )
    assert scores["audio"] is not None and scores["audio"] > 0.9
    assert scores["visual"] is not None and abs(scores["visual"]) < 0.1
    # one class alone has no silhouette
    assert scores["control_visual"] is None


def test_embeddings_in_a_command(stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from avgn.figures.embeddings import collect_embeddings, draw_embeddings

    output, report = tmp_path / "o.png", tmp_path / "o.json"
    command = ("figure", "embeddings", CHECKPOINT, stills, "--output", output, "--json", report)
    assert main([str(part) for part in command]) == 0
    assert "silhouette" in capsys.readouterr().out
    facts = json.loads(report.read_text())
    assert output.read_bytes().startswith(MAGIC["png"])
    manifest = read_manifest(stills)
    found = collect_embeddings(load_model(CHECKPOINT), manifest)
    assert (facts["sources"], facts["classes"]) == (len(found.labels), len(set(found.labels.tolist())))
    assert facts["silhouette"] == pytest.approx(draw_embeddings(found, manifest.classes, tmp_path / "b.png"), abs=1e-6)
    assert output.read_bytes() == (tmp_path / "b.png").read_bytes()


def test_many_classes_and_long_names_fit(tmp_path: Path) -> None:
    from avgn.figures.embeddings import Embeddings, draw_embeddings
    from avgn.figures.qualitative import _shorten

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 3)
    values = rng.normal(size=(120, 8))
    found = Embeddings(labels=labels, audio=values, visual=values, control_audio=values, control_visual=values)
    draw_embeddings(found, tuple(f"people_eating_crisps_{n}" for n in range(40)), tmp_path / "o.svg")
    assert (tmp_path / "o.svg").read_text().startswith("<?xml")
    assert (
        _shorten("people eating crisps", 0.7) == "people e\N{HORIZONTAL ELLIPSIS}" and _shorten("flute", 0.7) == "flute"
    )


def small(**options: Any) -> dict[str, Any]:
    return {"width_visual": 4, "width_audio": 4, "dim": 16, "heads": 4, "depth": 1, **options}


def refused_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail in this process, where torch is loaded; returns its one line on stderr."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("avgn: ") and said.count("\n") == 1
    return said


def test_bad_input(stills: Path, manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(build_model(preset("avgn-tiny", classes=("a", "b"), **small())), tmp_path / "other")
    no_classes = preset("avgn-tiny", classes=manifest.classes, **small(ablation="neither", visual_gate="none"))
    save_model(build_model(no_classes), tmp_path / "shared")
    silent = next((item.id for item in manifest.items if item.id not in shown(manifest)), None)
    before = sorted(path.name for path in tmp_path.iterdir())
    output = tmp_path / "o.png"
    page = ("figure", "qualitative", stills, "--output", output)
    model = ("--model", "AVGN=tiny")
    points = ("figure", "embeddings", CHECKPOINT, stills, "--output", output)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("figure", "pie"), "figure 'pie' is not known: choose one of qualitative, embeddings"),
        (page, "give at least one --model NAME=PATH"),
        ((*page, "--model", "tiny"), "--model must be NAME=PATH, got 'tiny'"),
        ((*page, *model, *model), "--model 'AVGN' is given twice"),
        ((*page, "--model", "AVGN=nowhere"), "nowhere does not exist"),
        ((*page, "--model", f"AVGN={tmp_path / 'other'}"), "are not the model's"),
        ((*page, *model, "--items", "nobody"), "lists no item 'nobody'"),
        ((*page, *model, "--count", 0), "--count must be at least 1, got 0"),
        ((*page[:4], tmp_path / "o.gif", *model), "must end with one of .png, .pdf, .svg"),
        ((*page[:4], tmp_path / "no" / "o.png", *model), "its folder does not exist"),
        ((*page[:2], tmp_path / "none.jsonl", *page[3:], *model), "none.jsonl does not exist"),
        ((*points[:2], "tiny", *points[3:]), "tiny is a bundle, whose graphs hide the embeddings"),
        ((*points[:2], tmp_path / "nowhere", *points[3:]), "holds no config.json"),
        ((*points[:2], tmp_path / "shared", *points[3:]), "has no class-aware embeddings"),
        ((*points[:2], tmp_path / "other", *points[3:]), "are not the model's"),
    ]
    if silent is not None:
        cases.append(((*page, *model, "--items", silent), "has no sounding visible source"))
    for arguments, words in cases:
        assert words in refused_here(capsys, *arguments)
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_still_that_costs_minutes_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """Pictures of figures are decoded within the limits of all others."""
    from avgn.cli.options import load_engine
    from avgn.figures.qualitative import draw_qualitative

    name = shown(manifest)[0]
    for kind, data in (("scans", many_scans()), ("headers", two_headers())):
        path = tmp_path / f"{kind}.jpg"
        path.write_bytes(data)
        items = tuple(replace(item, frame=path) if item.id == name else item for item in manifest.items)
        begin = time.process_time()
        with pytest.raises(InputError, match=str(path)):
            draw_qualitative(
                {"tiny": load_engine("tiny")}, replace(manifest, items=items), tmp_path / "o.png", items=[name]
            )
        assert time.process_time() - begin < 10
        assert not (tmp_path / "o.png").exists()


def test_too_few_sources_are_refused(stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = stills.parent / "few.jsonl"
    few.write_text("\n".join(stills.read_text().splitlines()[:3]) + "\n")
    assert "give at least 8 of 2 classes" in refused_here(
        capsys, "figure", "embeddings", CHECKPOINT, few, "--output", tmp_path / "o.png"
    )
    empty = stills.parent / "empty.jsonl"
    empty.write_text(stills.read_text().splitlines()[0] + "\n")
    page = ("figure", "qualitative", empty, "--model", "AVGN=tiny", "--output", tmp_path / "o.png")
    assert "has no item with a sounding visible source" in refused_here(capsys, *page)


def test_a_missing_matplotlib_is_named(stills: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from avgn.cli import main;"
        f"sys.exit(main(['figure', 'qualitative', {str(stills)!r}, '--model', 'a=tiny', '--output', 'o.png']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "avgn: matplotlib is not installed: pip install 'avgn[figures]'"
