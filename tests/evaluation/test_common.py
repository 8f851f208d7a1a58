"""Manifests whose classes are not the model's: the common ones are scored, and what is left out is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.cli import main
from avgn.evaluation import evaluate
from avgn.evaluation.calibration import calibrate
from avgn.evaluation.common import find_common
from avgn.runtime.bundle import Bundle, write_bundle_info
from avgn.runtime.bundle_schema import Joint
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest, Source, read_manifest, write_manifest
from avgn.scenes import SceneConfig, synthesize

Make = Callable[..., Any]
BOX = ((0.1, 0.1, 0.4, 0.4),)


def with_stranger(manifest: Manifest, *places: int) -> Manifest:
    """Beside or in place of what is there, something that no model knows sounds in the items at these places."""
    stranger = Source(label="viola", sounding=True, on_screen=True, boxes=BOX)
    items = list(manifest.items)
    first, *others = places
    items[first] = replace(items[first], sources=(stranger,))
    for place in others:
        items[place] = replace(items[place], sources=(*items[place].sources, stranger))
    return replace(manifest, classes=("viola", *manifest.classes), items=tuple(items))


@pytest.mark.parametrize("classes", [["given"], ["given", "predicted"]])
def test_a_superset_is_scored_on_the_common_ones(make_manifest: Make, tone_engine: Make, classes: list[str]) -> None:
    manifest = make_manifest(8)
    wider = with_stranger(manifest, 0, 3)
    results = evaluate(tone_engine(), wider, ["adaptive"], classes, bootstrap=0)
    same = evaluate(tone_engine(), replace(manifest, items=manifest.items[1:]), ["adaptive"], classes, bootstrap=0)
    assert [result["classes"] for result in results] == classes
    for found, expected in zip(results, same, strict=True):
        assert found["metrics"] == expected["metrics"] and found["items"] == expected["items"]
        assert found["notes"][0] == (
            "only the 4 common classes count: only the manifest has viola (1 of 8 items are left out, 1 lose "
            "some of their sources)"
        )


def test_a_subset_is_scored_without_the_model_s_other_classes(make_manifest: Make, tone_engine: Make) -> None:
    manifest = make_manifest(12)
    few = ("flute", "drum")
    items = tuple(
        replace(item, sources=kept)
        for item in manifest.items
        if (kept := tuple(source for source in item.sources if source.label in few))
    )
    given, predicted = evaluate(tone_engine(), replace(manifest, classes=few, items=items), ["adaptive"], bootstrap=0)
    assert given["notes"][0].endswith("only the model has bell, horn")
    assert given["items"] == predicted["items"] > 5
    # what else sounds in these scenes is none of the common classes, and no false source
    assert predicted["metrics"]["false sources per image"] == 0


def test_another_order_is_no_difference(make_manifest: Make, tone_engine: Make) -> None:
    manifest = make_manifest(4)
    turned = replace(manifest, classes=manifest.classes[::-1])
    engine = tone_engine()
    common = find_common(engine.info, turned)
    assert common.note == "" and common.narrow(engine) is engine
    one, other = (evaluate(engine, each, ["adaptive"], bootstrap=0) for each in (manifest, turned))
    assert one == other


def test_nothing_in_common(make_manifest: Make, tone_engine: Make) -> None:
    info = tone_engine().info
    with pytest.raises(InputError, match="only the manifest has viola; only the model has bell"):
        find_common(info, make_manifest([], ("viola",)))
    manifest = make_manifest(1)
    with pytest.raises(InputError, match="shows none of the 4 classes that it has in common"):
        find_common(info, with_stranger(manifest, 0))


def test_thresholds_of_the_others_stay(make_manifest: Make, tone_engine: Make) -> None:
    manifest = make_manifest(12)
    few = manifest.classes[:2]
    items = tuple(
        replace(item, sources=tuple(source for source in item.sources if source.label in few))
        for item in manifest.items
    )
    engine = tone_engine()
    found = calibrate(engine, replace(manifest, classes=few, items=items))
    assert len(found.audio) == len(engine.info.classes)
    assert found.audio[2:] == engine.info.thresholds.audio[2:]
    results = evaluate(
        engine,
        replace(manifest, classes=few, items=items),
        ["adaptive"],
        thresholds=(np.array(found.audio), np.array(found.visual)),
        bootstrap=0,
    )
    assert {result["classes"] for result in results} == {"given", "predicted"}


def test_commands_say_what_they_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = synthesize(tmp_path / "set", scenes=6, config=SceneConfig(split="test", sources=(1, 2)), seed=3, jobs=1)
    manifest = with_stranger(read_manifest(scenes), 0)
    write_manifest(tmp_path / "wider.jsonl", manifest.classes, manifest.items)
    command = ["evaluate", "tiny", str(tmp_path / "wider.jsonl"), "--protocol", "adaptive", "--bootstrap", "0"]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    assert "note: only the 10 common" in capsys.readouterr().out
    notes = json.loads((tmp_path / "out.json").read_text())[0]["notes"]
    assert "only the manifest has viola (1 of 6 items are left out" in notes[0]
    shutil.copytree(Bundle.load("tiny").path, tmp_path / "bundle")
    info = Bundle.load(tmp_path / "bundle").info
    rule = Joint(visual_weight=1.0, thresholds=(0.0,) * len(info.classes), margin=99.0, apart=0.0, floor=-99.0)
    write_bundle_info(tmp_path / "bundle", replace(info, joint=rule))
    assert main(["calibrate", str(tmp_path / "bundle"), str(tmp_path / "wider.jsonl")]) == 0
    assert "only the manifest has viola" in capsys.readouterr().out
    fitted = Bundle.load(tmp_path / "bundle").info
    assert fitted.joint is not None and len(fitted.joint.thresholds) == len(info.classes)
    assert len(fitted.thresholds.audio) == len(info.classes)
