"""avgn calibrate: finds the rule that planted scores were made by, writes the bundle, and refuses the rest."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from avgn.cli import main
from avgn.cli.excerpts import with_threshold
from avgn.evaluation import joint_calibration
from avgn.evaluation.inference import Predictions
from avgn.runtime.bundle import BUNDLE_FILE, Bundle, write_bundle_info
from avgn.runtime.bundle_schema import Joint
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, Source
from avgn.scenes import SceneConfig, synthesize

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


@pytest.fixture(scope="module")
def duets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
    return synthesize(tmp_path_factory.mktemp("duets") / "set", scenes=4, config=scenes, seed=3, jobs=1)


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
    # a few peak in the same cell and stand for each other
    assert 0.9 < sum(count for count, _, _ in made.reliability) / (COUNT * len(bundle.classes)) < 1
    read = Bundle.load(bundle.path).info
    assert read.joint == made.joint
    assert read.provenance["calibration"]["items"] == COUNT
    assert read.provenance["calibration"]["datasets"] == ["planted"]
    assert read.variants == bundle.info.variants


def test_weights_of_what_is_seen_are_tried_in_parts_of_the_bundles_own(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted weight is 0.5; twice 0.2 is the nearest that can be reached."""
    manifest, found = planted(bundle, tmp_path / "manifest.jsonl")
    monkeypatch.setattr(joint_calibration, "predict", lambda engine, given, progress=None: found)
    assert bundle.info.joint is not None
    write_bundle_info(bundle.path, replace(bundle.info, joint=replace(bundle.info.joint, visual_weight=0.2)))
    made = joint_calibration.calibrate_bundle(Bundle.load(bundle.path), None, manifest)  # type: ignore[arg-type]
    assert made.joint.visual_weight == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_false", [0.02, 0.25, 9.0])
def test_no_other_threshold_has_a_better_f1_within_the_false_sources(seed: int, max_false: float) -> None:
    rng = np.random.default_rng(seed)
    count, classes = 60, 3
    # nothing peaks where another class does; some images show nothing, some all three
    truth = rng.random((count, classes)) < 0.25
    heard = np.where(truth, rng.normal(1, 1.5, truth.shape), rng.normal(-1, 1.5, truth.shape))
    found = Predictions(
        items=(),
        maps=(np.eye(classes, dtype=np.float32)[:, :, None],) * count,
        audio_prob=(1 / (1 + np.exp(-heard))).astype(np.float32),
        visual_prob=np.full(truth.shape, 0.5, np.float32),
        pieces=(1,) * count,
    )
    rule = Joint(visual_weight=1.0, thresholds=(0.0,) * classes, margin=99.0, apart=0.0, floor=-99.0)
    made = joint_calibration._best_threshold(rule, found, truth, max_false)
    (threshold,) = set(made.thresholds)

    def score(level: float) -> tuple[float, float]:
        said = heard >= level
        return 2 * (said & truth).sum() / (said.sum() + truth.sum()), (said & ~truth).sum() / count

    levels = np.sort(heard.ravel())
    cuts = [(low + high) / 2 for low, high in zip(levels[:-1], levels[1:], strict=True)] + [levels[0] - 1]
    allowed = [score(cut)[0] for cut in cuts if score(cut)[1] <= max_false]
    mine = score(threshold)
    assert mine[0] == pytest.approx(max(allowed)) and mine[1] <= max_false
    # midway between two scores: neither is at its edge
    assert min(abs(threshold - cut) for cut in cuts) < 1e-3


def test_where_all_is_right_the_threshold_lies_below_all_scores() -> None:
    truth = np.ones((4, 1), bool)
    found = Predictions(
        items=(),
        maps=(np.ones((1, 1, 1), np.float32),) * 4,
        audio_prob=np.array([[0.9], [0.5], [0.7], [0.2]], np.float32),
        visual_prob=np.full((4, 1), 0.5, np.float32),
        pieces=(1,) * 4,
    )
    rule = Joint(visual_weight=1.0, thresholds=(0.0,), margin=99.0, apart=0.0, floor=-99.0)
    made = joint_calibration._best_threshold(rule, found, truth, 0.25)
    assert made.thresholds[0] < np.log(0.2 / 0.8) and joint_calibration._claimed(made, found).all()


def test_rules_with_too_many_false_sources_are_ranked_by_these_alone() -> None:
    rank = joint_calibration._rank
    assert rank((90.0, 3.0), 0.25) < rank((50.0, 1.0), 0.25) < rank((10.0, 0.25), 0.25) < rank((11.0, 0.0), 0.25)
    # as docs/evaluation.md says
    assert joint_calibration.MAX_FALSE_PER_IMAGE == 0.25


def test_what_sounds_out_of_the_picture_or_gives_way_is_no_case(bundle: Bundle) -> None:
    name = bundle.classes[0]
    sources = [
        Source(label=name, sounding=sounds, on_screen=seen, boxes=((0.1, 0.1, 0.4, 0.4),) if seen else ())
        for sounds, seen in ((True, True), (True, False), (False, True))
    ]
    items = tuple(
        Item(id=str(n), frame=None, audio=None, sources=(source,), split="val", dataset="", video=str(n))
        for n, source in enumerate(sources)
    )
    # both classes peak in the one cell: the second one gives way
    found = Predictions(
        items=items,
        maps=(np.ones((2, 1, 1), np.float32),) * 3,
        audio_prob=np.tile(np.array([0.9, 0.6], np.float32), (3, 1)),
        visual_prob=np.full((3, 2), 0.5, np.float32),
        pieces=(1,) * 3,
    )
    truth = joint_calibration.sounding_on_screen(found, (name, "other"))
    assert truth.tolist() == [[True, False], [False, False], [False, False]]
    rule = Joint(visual_weight=1.0, thresholds=(0.0, 0.0), margin=99.0, apart=0.0, floor=-99.0)
    rows = joint_calibration.reliability(rule, found, truth)
    assert [count for count, _, _ in rows] == [0] * 8 + [0, 3]
    assert list(rows[9][1:]) == pytest.approx([0.9, 1 / 3])


def test_the_scale_makes_probabilities_that_can_be_believed(bundle: Bundle) -> None:
    """Truth is drawn with sigmoid(0.4 * odds): the scale must be 0.4, and every tenth right as often as it says."""
    random = np.random.default_rng(1)
    count, classes = 20_000, 2
    odds = random.normal(0, 4, (count, classes)).astype(np.float32)
    truth = random.random((count, classes)) < 1 / (1 + np.exp(-0.4 * odds))
    found = Predictions(
        items=(),
        maps=(np.eye(2, dtype=np.float32)[:, :, None],) * count,
        audio_prob=1 / (1 + np.exp(-odds)),
        visual_prob=np.full_like(odds, 0.5),
        pieces=(1,) * count,
    )
    rule = Joint(visual_weight=1.0, thresholds=(0.0, 0.0), margin=99.0, apart=0.0, floor=-99.0)
    fitted = joint_calibration.fit_scale(rule, found, truth)
    assert fitted.scale == pytest.approx(0.4, rel=0.05)
    for _, mean, share in joint_calibration.reliability(fitted, found, truth):
        assert share == pytest.approx(mean, abs=0.03)
    all_right = np.ones_like(truth)
    assert joint_calibration.fit_scale(rule, found, all_right) == rule


def test_the_command_fits_a_copy_and_draws_its_reliability(
    bundle: Bundle, duets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, report = tmp_path / "reliability.png", tmp_path / "found.json"
    command = ["calibrate", str(bundle.path), str(duets), "--plot", str(plot)]
    assert main([*command, "--json", str(report), "--max-false", "0.5"]) == 0
    found = json.loads(report.read_text())
    assert found["false_sources"] <= 0.5 < found["before"][1]
    assert f"false sources an image {found['before'][1]:.2f} -> {found['false_sources']:.2f}" in capsys.readouterr().out
    written = Bundle.load(bundle.path).info.joint
    assert written is not None and written.scale == found["joint"]["scale"]
    drawn = cv2.imread(str(plot))
    assert drawn is not None and min(drawn.shape[:2]) > 400 and drawn.std() > 10
    assert main([*command, "--max-false", "0"]) == 2
    assert main(["calibrate", str(bundle.path), str(duets), "--plot", str(tmp_path / "a.txt")]) == 2


def test_nothing_is_written_where_the_plot_cannot_be_drawn(
    bundle: Bundle, duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle.path / BUNDLE_FILE).read_bytes()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["calibrate", str(bundle.path), str(duets), "--plot", str(tmp_path / "a.png")]) == 2
    assert "pip install 'avgn[figures]'" in capsys.readouterr().err
    assert (bundle.path / BUNDLE_FILE).read_bytes() == before and not (tmp_path / "a.png").exists()


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
    # a scale of a half: twice the log-odds for the same probability
    write_bundle_info(bundle.path, replace(bundle.info, joint=replace(bundle.info.joint, scale=0.5)))
    scaled = with_threshold(str(bundle.path), f"{first}=0.9").info.joint
    assert scaled is not None
    assert scaled.thresholds[0] - bundle.info.joint.thresholds[0] == pytest.approx(2 * np.log(9))
