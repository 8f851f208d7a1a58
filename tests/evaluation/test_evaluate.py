"""The whole evaluation of still scenes: a perfect model, hand-made cases, and an independent brute force."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from avgn.evaluation import evaluate, format_table, predict
from avgn.evaluation.canvas import box_mask, upsample_bilinear
from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest, Source

Make = Callable[..., Any]
PROTOCOLS = ("source-wise", "frame-wise", "adaptive")
A, B, C = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), (0.5, 0.0, 1.0, 0.5)


def _binarise(protocol: str, score: Array, mask: Array) -> Array:
    if protocol != "adaptive":
        return np.asarray(score >= np.median(score))
    order = np.lexsort((np.arange(score.size), -score.ravel()))
    chosen = np.zeros(score.size, dtype=bool)
    chosen[order[: mask.sum()]] = True
    return chosen.reshape(score.shape)


def _brute(protocol: str, mode: str, manifest: Manifest, engine: Any) -> dict[str, float]:
    """Every metric again, with plain loops over images and sources."""
    said = predict(engine, manifest)
    caps: list[float] = []
    by_class: dict[str, list[float]] = {}
    piaps, cious, aps, ious = [], [], [], []
    hits, num_said, num_true, false, missed = 0, 0, 0, 0, 0
    worst, quiet = [], []
    heard_all, sounds_all = [], []
    for n, item in enumerate(said.items):
        heard = {c for k, c in enumerate(manifest.classes) if said.audio_prob[n, k] >= 0.5}
        seen = {c for k, c in enumerate(manifest.classes) if said.visual_prob[n, k] >= 0.5}
        heard_all.append([c in heard for c in manifest.classes])
        sounds_all.append([any(s.sounding and s.label == c for s in item.sources) for c in manifest.classes])
        truth = {s.label: box_mask(s.boxes) for s in item.sources if s.sounding and s.on_screen}
        maps = {c: upsample_bilinear(said.maps[n])[k] for k, c in enumerate(manifest.classes)}
        chosen = sorted(truth) if mode == "given" else sorted(heard & seen)
        false += len(set(chosen) - set(truth))
        silent = [c for c, sounds in zip(manifest.classes, sounds_all[-1], strict=True) if not sounds]
        shares = [np.mean((maps[c] - maps[c].min()) / np.ptp(maps[c]) <= 0.2) for c in silent]
        quiet += [np.mean(shares)] if shares else []
        if not truth:
            continue
        precision = {
            (c, t): average_precision_score(g.ravel(), maps[c].ravel()) for c in chosen for t, g in truth.items()
        }
        overlap = {}
        for label, g in truth.items():
            caps.append(precision.get((label, label), 0.0))
            by_class.setdefault(label, []).append(caps[-1])
            binary = _binarise(protocol, maps[label], g)
            overlap[label] = (binary & g).sum() / (binary | g).sum() if label in chosen else 0.0
            if label in chosen:
                aps.append(precision[label, label])
                ious.append(overlap[label])
                hits += overlap[label] >= 0.3
        cious.append(np.mean(list(overlap.values())))
        worst.append(min(overlap.values()))
        missed += len(set(truth) - set(chosen))
        num_said += len(chosen)
        num_true += len(truth)
        padded = [*chosen, *([""] * len(truth))]
        piaps.append(
            max(
                sum(precision.get((c, t), 0.0) for c, t in zip(order, truth, strict=False))
                for order in itertools.permutations(padded, len(truth))
            )
            / len(truth)
        )
    rates = [np.mean(np.array(cious) >= i / 20) for i in range(21)]
    columns = [c for c in range(4) if np.array(heard_all)[:, c].any() or np.array(sounds_all)[:, c].any()]
    macro = [f1_score(np.array(sounds_all)[:, c], np.array(heard_all)[:, c]) for c in columns]
    return {
        "CAP": 100 * float(np.mean(caps)),
        "macro CAP": 100 * float(np.mean([np.mean(v) for v in by_class.values()])),
        "AP": 100 * float(np.mean(aps)),
        "PIAP": 100 * float(np.mean(piaps)),
        "CIoU@0.3": 100 * float(np.mean(np.array(cious) >= 0.3)),
        "CIoU@0.5": 100 * float(np.mean(np.array(cious) >= 0.5)),
        "AUC": 100 * float(np.trapezoid(rates, np.arange(21) / 20)),
        "IoU@0.3": 100 * float(np.mean(np.array(ious) >= 0.3)),
        "F1@0.3": 100 * 2 * hits / (num_said + num_true),
        "class F1 audio": 100 * float(np.mean(macro)),
        "class F1 audio micro": 100 * float(f1_score(np.array(sounds_all).ravel(), np.array(heard_all).ravel())),
        "false sources per image": false / len(said.items),
        "missed sources per image": missed / len(said.items),
        "IIoU@0.1": 100 * float(np.mean(np.array(worst) >= 0.1)),
        "IIoU@0.3": 100 * float(np.mean(np.array(worst) >= 0.3)),
        "NSA": 100 * float(np.mean(quiet)),
    }


def test_all_metrics_equal_a_brute_force(make_manifest: Make, tone_engine: Make, noisy: Make) -> None:
    manifest = make_manifest(8)
    results = evaluate(noisy(tone_engine(), 5), manifest, PROTOCOLS, bootstrap=0)
    assert [(r["protocol"], r["classes"]) for r in results] == list(
        itertools.product(PROTOCOLS, ("given", "predicted"))
    )
    for result in results:
        expected = _brute(result["protocol"], result["classes"], manifest, noisy(tone_engine(), 5))
        absent = ["NSA"] if result["protocol"] == "adaptive" or result["classes"] == "predicted" else []
        absent += ["false sources per image", "missed sources per image"] * (result["classes"] == "given")
        for name in absent:
            assert name not in result["metrics"]
            del expected[name]
        if result["classes"] == "predicted":
            assert 0 < result["counts"]["missed sources"] < 16 and result["counts"]["surplus maps"] > 0
        for name, value in expected.items():
            assert result["metrics"][name] == pytest.approx(value, abs=1e-4), (result["protocol"], name)


def test_a_perfect_model_is_near_the_ceiling_and_above_the_floor(make_manifest: Make, tone_engine: Make) -> None:
    for result in evaluate(tone_engine(), make_manifest(12)):
        metrics = result["metrics"]
        assert metrics["class F1 audio"] == metrics["class F1 visual"] == 100
        assert metrics["CAP"] > 85 and metrics["CAP"] > result["floor"]["CAP"] + 40
        assert result["floor"]["CAP"] > 0 and result["chance"]["CAP"] < metrics["CAP"]
        assert metrics["AUC"] <= result["ceiling"]["AUC"] + 3
        assert result["items"] == result["images"] == 12 and result["skipped"] == {}
        low, high = result["ci95"]["CAP"]
        assert low < metrics["CAP"] < high
        if result["classes"] == "predicted":
            assert metrics["false sources per image"] == 0


def test_missed_and_extra_classes(make_manifest: Make, tone_engine: Make, scene_type: Make) -> None:
    scenes = [scene_type(sounding=(("bell", A), ("drum", B)), silent=(("flute", C),))]
    manifest = make_manifest(scenes)
    always, never = 0.0, 2.0

    def run(audio: tuple[float, ...]) -> dict[str, Any]:
        thresholds = np.array(audio), np.full(4, 0.5)
        result: dict[str, Any] = evaluate(
            tone_engine(), manifest, ["adaptive"], ["predicted"], thresholds=thresholds, bootstrap=0
        )[0]
        return result

    full = run((0.5, 0.5, 0.5, 0.5))
    assert full["metrics"]["F1@0.3"] == 100 and full["metrics"]["false sources per image"] == 0
    extra = run((0.5, 0.5, always, 0.5))
    assert extra["metrics"]["CAP"] == full["metrics"]["CAP"]
    assert extra["metrics"]["false sources per image"] == 1 and extra["counts"]["surplus maps"] == 1
    assert extra["metrics"]["F1@0.3"] == pytest.approx(100 * 4 / 5)
    missed = run((0.5, never, 0.5, 0.5))
    assert missed["counts"]["missed sources"] == 1
    assert missed["metrics"]["CAP"] == pytest.approx(full["metrics"]["CAP"] / 2, rel=0.05)
    assert missed["metrics"]["PIAP"] == pytest.approx(full["metrics"]["PIAP"] / 2, rel=0.05)
    assert missed["metrics"]["CIoU@0.5"] == 0 and missed["metrics"]["CIoU@0.1"] == 100
    assert missed["metrics"]["F1@0.3"] == pytest.approx(100 * 2 / 3)
    unseen = run((0.5, 0.5, 0.5, always))
    assert unseen["metrics"]["false sources per image"] == 0 and unseen["metrics"]["class F1 audio"] < 100
    nothing = run((never,) * 4)
    assert nothing["metrics"]["CAP"] == nothing["metrics"]["PIAP"] == 0 and nothing["metrics"]["AP"] is None


def test_images_without_sources_count_for_false_sources(
    make_manifest: Make, tone_engine: Make, scene_type: Make
) -> None:
    scenes = [scene_type(sounding=(("bell", A),)), scene_type(silent=(("drum", B),)), scene_type(hidden=("horn",))]
    thresholds = np.array([0.5, 0.0, 0.5, 0.5]), np.full(4, 0.5)
    result = evaluate(tone_engine(), make_manifest(scenes), ["adaptive"], ["predicted"], thresholds=thresholds)[0]
    assert result["items"] == 1 and result["images"] == 3
    assert result["skipped"] == {"no sounding visible source": 2}
    assert result["metrics"]["false sources per image"] == pytest.approx(1 / 3)
    only_silent = evaluate(tone_engine(), make_manifest(scenes[1:]))
    assert only_silent[0]["metrics"]["CAP"] is None and only_silent[0]["items"] == 0
    assert "-" in format_table(only_silent)


def test_flat_and_tied_maps_are_counted(make_manifest: Make, tone_engine: Make, scene_type: Make) -> None:
    manifest = make_manifest([scene_type(sounding=(("bell", A),), silent=(("drum", B),))])
    items = [replace(manifest.items[0], sources=(Source(label="horn", sounding=True, on_screen=True, boxes=(A,)),))]
    names = ["source-wise", "adaptive"]
    wide, adaptive = evaluate(tone_engine(), replace(manifest, items=tuple(items)), names, ["given"], bootstrap=0)
    assert wide["counts"]["flat maps"] == adaptive["counts"]["flat maps"] == 1
    assert wide["metrics"]["CAP"] == adaptive["metrics"]["CAP"] == pytest.approx(25)
    assert wide["metrics"]["CIoU@0.1"] == 100 and wide["metrics"]["CIoU@0.3"] == 0
    assert wide["counts"]["tied maps"] == 0 and adaptive["counts"]["tied maps"] == 1
    # a map that was not asked for is none that was flat
    both = evaluate(tone_engine(), replace(manifest, items=tuple(items)), ["source-wise"], bootstrap=0)
    flat = {result["classes"]: (result["counts"]["flat maps"], result["metrics"]["CAP"]) for result in both}
    assert flat == {"given": (1, pytest.approx(25)), "predicted": (0, 0)}


def test_two_sources_of_a_class_share_a_mask(make_manifest: Make, tone_engine: Make, scene_type: Make) -> None:
    both = evaluate(tone_engine(), make_manifest([scene_type(sounding=(("bell", A), ("bell", B)))]), bootstrap=0)
    assert both[0]["counts"]["sources"] == 1
    assert both[0]["metrics"]["CAP"] > 95


def test_masks_without_pixels_and_sources_without_truth_are_not_scored(
    make_manifest: Make, tone_engine: Make, scene_type: Make, tmp_path: Path
) -> None:
    manifest = make_manifest([scene_type(sounding=(("bell", A), ("drum", B), ("flute", C)))])
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((50, 50), np.uint8))
    bell, drum, flute = manifest.items[0].sources
    sources = (bell, replace(drum, boxes=()), replace(flute, boxes=(), mask=tmp_path / "empty.png"))
    item = replace(manifest.items[0], sources=sources)
    result = evaluate(tone_engine(), replace(manifest, items=(item,)), ["adaptive"], ["predicted"], bootstrap=0)[0]
    assert result["skipped"] == {"no box or mask": 1, "empty mask": 1}
    assert result["counts"]["sources"] == 1 and result["metrics"]["F1@0.3"] == 100
    assert result["metrics"]["false sources per image"] == 0


def test_unreadable_masks_are_named_or_counted(make_manifest: Make, tone_engine: Make, tmp_path: Path) -> None:
    manifest = make_manifest(3)
    (tmp_path / "bad.png").write_bytes(b"no mask")
    first, *others = manifest.items
    broken = replace(first, sources=tuple(replace(s, mask=tmp_path / "bad.png") for s in first.sources))
    damaged = replace(manifest, items=(broken, *others))
    with pytest.raises(InputError, match="'scene000'.*bad.png"):
        evaluate(tone_engine(), damaged, bootstrap=0)
    skipped = evaluate(tone_engine(), damaged, skip_bad=True, bootstrap=50)
    sound = evaluate(tone_engine(), replace(manifest, items=tuple(others)), bootstrap=50)
    for one, other in zip(skipped, sound, strict=True):
        assert one.pop("skipped") == {"unreadable": 1} and other.pop("skipped") == {}
        assert one == other


def test_thresholds_come_from_the_model(make_manifest: Make, tone_engine: Make) -> None:
    deaf_to_bells = tone_engine(thresholds=Thresholds(audio=(1.5, 0.5, 0.5, 0.5), visual=(0.5,) * 4))
    manifest = make_manifest(6)
    result = evaluate(deaf_to_bells, manifest, ["adaptive"], ["predicted"], bootstrap=0)[0]
    bells = sum(s.label == "bell" and s.sounding and s.on_screen for item in manifest.items for s in item.sources)
    assert result["counts"]["missed sources"] == bells > 0
    with pytest.raises(InputError, match="one per class"):
        evaluate(deaf_to_bells, manifest, thresholds=(np.zeros(3), np.zeros(4)))


def test_a_shared_map_is_given_to_every_source(make_manifest: Make, tone_engine: Make) -> None:
    engine = tone_engine()
    listen, look = engine.run_audio, engine.run_image
    engine.info = replace(
        engine.info, classes=("sound",), has_presence=False, thresholds=Thresholds(audio=(0.5,), visual=(0.5,))
    )
    engine.run_audio = lambda waveform: {"sources": listen(waveform)["sources"]}
    engine.run_image = lambda image, sources: {"maps": look(image, sources)["maps"].max(axis=1, keepdims=True)}
    manifest = make_manifest(6)
    result = evaluate(engine, manifest, ["adaptive"], ["given"], bootstrap=0)[0]
    assert result["maps"] == "shared-map" and result["counts"]["sources"] == 12
    assert result["floor"]["CAP"] < result["metrics"]["CAP"] < 80
    assert "shared-map" in format_table([result])
    with pytest.raises(InputError, match="one map for the whole mixture"):
        evaluate(engine, manifest)


def test_without_presence_heads_the_map_decides(make_manifest: Make, tone_engine: Make) -> None:
    engine = tone_engine(has_presence=False, thresholds=Thresholds(audio=(0.5,) * 4, visual=(-0.2,) * 4))
    result = evaluate(engine, make_manifest(6), ["adaptive"], ["predicted"], bootstrap=0)[0]
    assert result["counts"]["missed sources"] == 0 and result["metrics"]["false sources per image"] == 0
    assert "class F1 audio" not in result["metrics"]


def test_frames_of_one_video_are_one_sample(make_manifest: Make, tone_engine: Make, with_video: Make) -> None:
    result = evaluate(tone_engine(), with_video(make_manifest(5), "v"), ["adaptive"], ["given"])[0]
    low, high = result["ci95"]["CAP"]
    assert low == pytest.approx(high) == pytest.approx(result["metrics"]["CAP"])
    assert result["per_video"]["videos"] == 1
    assert "mean over 1 videos" in format_table([result])


def test_size_groups_hold_all_sources(make_manifest: Make, tone_engine: Make) -> None:
    result = evaluate(tone_engine(), make_manifest(12), ["adaptive"], ["given"], bootstrap=0)[0]
    groups = result["by_size"]
    assert [groups[name]["sources"] for name in ("small", "medium", "large")] == [8, 8, 8]
    assert groups["small"]["area"][1] <= groups["medium"]["area"][0]
    mean = np.mean([groups[name]["metrics"]["CAP"] for name in groups])
    assert mean == pytest.approx(result["metrics"]["CAP"])
    assert groups["large"]["floor"]["CAP"] > groups["small"]["floor"]["CAP"]


def test_results_are_plain_json_and_a_table(make_manifest: Make, tone_engine: Make) -> None:
    calls: list[tuple[int, int]] = []
    manifest = make_manifest(4)
    results = evaluate(tone_engine(), manifest, progress=lambda done, total: calls.append((done, total)))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert calls[-1] == (8, 8) and calls == sorted(calls)
    needed = {"CAP", "PIAP", "AP", "CIoU@0.1", "CIoU@0.3", "CIoU@0.5", "AUC", "F1@0.3", "macro CAP", "AUC(IoU)"}
    assert needed <= set(results[0]["metrics"])
    table = format_table(results)
    assert table.count("protocol ") == 6 and "ceiling" in table and max(map(len, table.splitlines())) <= 120
    row = next(line.split() for line in table.splitlines() if line.startswith("PIAP"))
    assert row[1] == f"{results[0]['metrics']['PIAP']:.1f}" and row[-1] == f"{results[0]['ceiling']['PIAP']:.1f}"


def test_unknown_names_are_refused(make_manifest: Make, tone_engine: Make) -> None:
    with pytest.raises(InputError, match="protocol 'best'.*adaptive, all, dsol.*source-wise, video"):
        evaluate(tone_engine(), make_manifest(1), ["best"])
    with pytest.raises(InputError, match="classes 'guessed'"):
        evaluate(tone_engine(), make_manifest(1), classes=["guessed"])
