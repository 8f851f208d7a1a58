"""avgn calibrate: finds the rule that planted scores were made by, writes the bundle, and refuses the rest."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avgn.cli import main
from avgn.cli.excerpts import with_threshold
from avgn.evaluation import joint_calibration
from avgn.evaluation.inference import Predictions
from avgn.runtime.bundle import Bundle, write_bundle_info
from avgn.runtime.bundle_schema import Joint
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, Source

COUNT = 120


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The shipped bundle with a joint rule that says everything."""
    folder = tmp_path / "bundle"
    shutil.copytree(Bundle.load("tiny").path, folder)
    info = Bundle.load(folder).info
    rule = Joint(visual_weight=1.0, thresholds=(-9.0,) * len(info.classes), margin=99.0, apart=0.0, floor=-99.0)
    write_bundle_info(folder, replace(info, joint=rule))
    return Bundle.load(folder)


def planted(bundle: Bundle, manifest: Path) -> tuple[Manifest, Predictions]:
    """Items of one source each, and another class that is heard or seen as much; heard + 0.5 * seen tells."""
    random = np.random.default_rng(0)
    classes = bundle.classes
    heard, seen = (random.normal(-4, 1, (COUNT, len(classes))) for _ in range(2))
    items = []
    for n in range(COUNT):
        k = n % len(classes)
        for each, odds in ((k, 1.5 + random.uniform(0, 1)), ((k + 3) % len(classes), random.uniform(-0.5, 0.5))):
            seen[n, each] = random.uniform(-8, 8)
            heard[n, each] = odds - 0.5 * seen[n, each]
        source = Source(label=classes[k], sounding=True, on_screen=True, boxes=((0.1, 0.1, 0.4, 0.4),))
        items.append(
            Item(id=str(n), frame=None, audio=None, sources=(source,), split="val", dataset="planted", video=str(n))
        )
    manifest.write_text("planted")
    maps = random.random((COUNT, len(classes), 8, 8)).astype(np.float32)
    found = Predictions(
        items=tuple(items),
        maps=tuple(maps),
        audio_prob=(1 / (1 + np.exp(-heard))).astype(np.float32),
        visual_prob=(1 / (1 + np.exp(-seen))).astype(np.float32),
        pieces=(1,) * COUNT,
    )
    return Manifest(path=manifest, classes=classes, items=tuple(items)), found


def test_the_planted_rule_is_found_and_written(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, found = planted(bundle, tmp_path / "manifest.jsonl")
    monkeypatch.setattr(joint_calibration, "predict", lambda engine, given, progress=None: found)
    made = joint_calibration.calibrate_bundle(bundle, None, manifest)  # type: ignore[arg-type]
    assert made.before[1] > 1 and made.f1 > 95 and made.false_sources <= joint_calibration.MAX_FALSE_PER_IMAGE
    assert made.joint.visual_weight == pytest.approx(0.5)
    assert sum(count for count, _, _ in made.reliability) == COUNT * len(bundle.classes)
    read = Bundle.load(bundle.path).info
    assert read.joint == made.joint
    assert read.provenance["calibration"]["items"] == COUNT
    assert read.provenance["calibration"]["datasets"] == ["planted"]
    assert read.variants == bundle.info.variants


def test_a_bundle_without_a_joint_rule_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    plain = Bundle(path=bundle.path, info=replace(bundle.info, joint=None))
    manifest, _ = planted(bundle, tmp_path / "manifest.jsonl")
    with pytest.raises(InputError, match="has no joint rule to calibrate"):
        joint_calibration.calibrate_bundle(plain, None, manifest)  # type: ignore[arg-type]


def test_the_shipped_bundle_is_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "tiny", str(tmp_path / "manifest.jsonl")]) == 2
    assert "copy its folder first" in capsys.readouterr().err


def test_a_threshold_asks_for_that_joint_probability(bundle: Bundle) -> None:
    first, second = bundle.classes[:2]
    assert bundle.info.joint is not None
    moved = with_threshold(str(bundle.path), f"{first}=0.9,{second}=1").info.joint
    assert moved is not None
    shifts = np.subtract(moved.thresholds, bundle.info.joint.thresholds)
    assert shifts[0] == pytest.approx(np.log(9)) and shifts[1] == pytest.approx(15)
    assert not shifts[2:].any()
