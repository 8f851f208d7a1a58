"""Maps of sources without a name: matched to the truth, against a brute force over permutations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from avgn.checkpoint import load_model, save_model
from avgn.cli import main
from avgn.config import preset
from avgn.engine import TorchEngine
from avgn.evaluation import evaluate, format_table, predict
from avgn.evaluation.canvas import box_mask, source_mask, upsample_bilinear
from avgn.evaluation.metrics import best_assignment
from avgn.model import build_model
from avgn.runtime.arrays import Array
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, read_manifest
from avgn.scenes import SceneConfig, synthesize

Make = Callable[..., Any]
A, B, C = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), (0.5, 0.0, 1.0, 0.5)


def nameless(engine: Any, maps_of: Callable[[Array], Array], count: int) -> Any:
    """The engine with `count` maps without names, [B, K, h, w], made of its own."""
    listen, look = engine.run_audio, engine.run_image
    names = tuple(f"source {n}" for n in range(1, count + 1))
    flat = Thresholds(audio=(0.5,) * count, visual=(0.5,) * count)
    engine.info = replace(engine.info, classes=names, has_presence=False, thresholds=flat)
    engine.run_audio = lambda waveform: {"sources": listen(waveform)["sources"]}
    engine.run_image = lambda image, sources: {"maps": maps_of(look(image, sources)["maps"])}
    return engine


def random_maps(count: int, seed: int = 0) -> Callable[[Array], Array]:
    """Sums of a class's map and noise, in steps, so that there are ties."""
    rng = np.random.default_rng(seed)

    def make(maps: Array) -> Array:
        drawn = maps[:, rng.integers(0, maps.shape[1], count)]
        return (np.round((drawn + rng.normal(0, 0.3, drawn.shape)) * 10) / 10).astype(np.float32)

    return make


def _scores(protocol: str, maps: Array, masks: Sequence[Array], views: Sequence[slice]) -> dict[str, Any]:
    """One image by trying every permutation; maps [K, H, W], each mask on its view of the columns."""
    slots = [*range(len(maps)), *[-1] * len(masks)]
    precision = {
        (k, s): average_precision_score(mask.ravel(), maps[k][:, view].ravel())
        for k in range(len(maps))
        for s, (mask, view) in enumerate(zip(masks, views, strict=True))
    }
    best = max(
        itertools.permutations(slots, len(masks)),
        key=lambda order: sum(precision.get((k, s), 0.0) for s, k in enumerate(order)),
    )
    overlap = []
    for k, mask, view in zip(best, masks, views, strict=True):
        if k < 0:
            overlap.append(0.0)
            continue
        score = maps[k][:, view]
        binary = score >= np.median(score)
        if protocol == "adaptive":
            binary = np.zeros(score.size, dtype=bool)
            binary[np.argsort(-score.ravel(), kind="stable")[: np.count_nonzero(mask)]] = True
            binary = binary.reshape(score.shape)
        overlap.append(float((binary & mask).sum() / (binary | mask).sum()))
    return {
        "ap": [precision.get((k, s), 0.0) for s, k in enumerate(best)],
        "iou": overlap,
        "missed": sum(k < 0 for k in best),
        "surplus": max(0, len(maps) - len(masks)),
    }


def _expected(images: list[dict[str, Any]]) -> dict[str, float]:
    mean = [np.mean(image["iou"]) for image in images]
    return {
        "CAP": 100 * float(np.mean([ap for image in images for ap in image["ap"]])),
        "PIAP": 100 * float(np.mean([np.mean(image["ap"]) for image in images])),
        **{f"CIoU@{t}": 100 * float(np.mean(np.array(mean) >= t)) for t in (0.1, 0.3, 0.5)},
        **{f"IIoU@{t}": 100 * float(np.mean([min(i["iou"]) >= t for i in images])) for t in (0.1, 0.3, 0.5)},
        "AUC": 100 * float(np.mean([np.trapezoid(1.0 * (v >= np.arange(21) / 20), dx=0.05) for v in mean])),
        "surplus maps per image": float(np.mean([image["surplus"] for image in images])),
    }


def _masks(item: Item) -> dict[str, Array]:
    sounding = [s for s in item.sources if s.sounding and s.on_screen]
    labels = sorted({s.label for s in sounding})
    return {label: source_mask([s for s in sounding if s.label == label]) for label in labels}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_scores_equal_a_brute_force_over_permutations(
    count: int, make_manifest: Make, tone_engine: Make, scene_type: Make
) -> None:
    boxes = ((0.0, 0.1, 0.4, 0.5), (0.5, 0.0, 0.9, 0.3), (0.3, 0.6, 0.9, 0.95))
    labels = list(itertools.permutations(("bell", "drum", "flute", "horn"), 3))[::4]
    manifest = make_manifest(
        [scene_type(sounding=tuple(zip(chosen, boxes, strict=True))[: 1 + n % 3]) for n, chosen in enumerate(labels)]
    )
    results = evaluate(
        nameless(tone_engine(), random_maps(count), count),
        manifest,
        ("source-wise", "frame-wise", "adaptive"),
        ["given"],
        bootstrap=20,
    )
    said = predict(nameless(tone_engine(), random_maps(count), count), manifest).maps
    for result in results:
        images = []
        by_class: dict[str, list[float]] = {}
        for item, maps in zip(manifest.items, said, strict=True):
            truth = _masks(item)
            whole = [slice(None)] * len(truth)
            images.append(_scores(result["protocol"], upsample_bilinear(maps), list(truth.values()), whole))
            for label, ap in zip(truth, images[-1]["ap"], strict=True):
                by_class.setdefault(label, []).append(ap)
        expected = _expected(images)
        for name, value in expected.items():
            assert result["metrics"][name] == pytest.approx(value, abs=1e-9), (result["protocol"], name)
        assert result["metrics"]["PIAP"] < 95
        per_class = {label: 100 * np.mean(values) for label, values in by_class.items()}
        assert result["metrics"]["macro CAP"] == pytest.approx(np.mean(list(per_class.values())))
        assert {k: v["CAP"] for k, v in result["per_class"].items()} == pytest.approx(per_class)
        missed = sum(image["missed"] for image in images)
        assert result["counts"]["missed sources"] == missed == (2 if count == 2 else 0)
        assert result["maps"] == "matched" and any("favours" in note for note in result["notes"])
        # what needs the name of a class
        assert not {"NSA", "F1@0.3", "class F1 audio", "false sources per image"} & result["metrics"].keys()
        assert result["floor"]["CAP"] <= result["ceiling"]["CAP"]
    assert "matched" in format_table(results).splitlines()[0]


@pytest.mark.parametrize("pair_input", ["canvas", "crops"])
def test_each_source_of_a_pair_is_matched_on_its_own_picture(
    pair_input: str, make_pairs: Make, tone_engine: Make, scene_type: Make
) -> None:
    def scene(label: str, box: Any) -> Any:
        return scene_type(sounding=((label, box),))

    manifest: Manifest = make_pairs(
        [
            (scene("bell", A), scene("drum", B)),
            (scene("flute", B), scene("drum", C)),
            (scene("bell", A), scene("bell", B)),
        ]
    )
    names = ("source-wise", "frame-wise")
    found = evaluate(
        nameless(tone_engine(), random_maps(2), 2), manifest, names, ["given"], bootstrap=0, pair_input=pair_input
    )
    said = predict(nameless(tone_engine(), random_maps(2), 2), manifest, pair_input=pair_input).maps
    for result in found:
        images = []
        for item, maps in zip(manifest.items, said, strict=True):
            pieces = np.split(maps, 2 if pair_input == "crops" else 1, axis=-1)
            width = 448 // len(pieces)
            canvas = np.concatenate([upsample_bilinear(piece, (224, width)) for piece in pieces], axis=-1)
            masks: dict[Any, Array] = {}
            for source in sorted(item.sources, key=lambda s: (s.label, s.part)):
                assert source.part is not None
                own = box_mask(source.boxes)
                if result["protocol"] == "source-wise":
                    masks[source.label, source.part] = own
                else:
                    whole = np.zeros((224, 448), dtype=bool)
                    whole[:, 224 * source.part : 224 * (source.part + 1)] = own
                    masks[source.label] = masks.get(source.label, False) | whole
            views = [
                slice(224 * key[1], 224 * (key[1] + 1)) if isinstance(key, tuple) else slice(None) for key in masks
            ]
            images.append(_scores(result["protocol"], canvas, list(masks.values()), views))
        for name, value in _expected(images).items():
            assert result["metrics"][name] == pytest.approx(value, abs=1e-9), (result["protocol"], name)
    # one class in both pictures is one source on the whole canvas
    assert [result["counts"]["surplus maps"] for result in found] == [0, 1]


def test_the_order_of_maps_does_not_matter_even_where_they_are_equal_or_flat(
    make_manifest: Make, tone_engine: Make
) -> None:
    manifest = make_manifest(6)

    def run(order: Sequence[int]) -> Any:
        def maps_of(maps: Array) -> Array:
            drawn = random_maps(2)(maps)
            five = np.concatenate([drawn, drawn[:, :1], np.zeros_like(drawn)], axis=1)
            return np.ascontiguousarray(five[:, order])

        return evaluate(
            nameless(tone_engine(), maps_of, len(order)), manifest, ["source-wise", "adaptive"], ["given"], bootstrap=0
        )

    first = run([0, 1, 2, 3, 4])
    assert run([0, 1, 2, 3, 4]) == first
    assert run([4, 2, 3, 1, 0]) == first
    # nothing but flat maps: chance
    flat = run([3, 4])
    assert flat[0]["counts"]["flat maps"] == flat[0]["counts"]["sources"] == 12
    assert flat[0]["metrics"]["CAP"] == pytest.approx(flat[0]["chance"]["CAP"])
    assert flat[0]["metrics"]["CIoU@0.1"] == flat[0]["chance"]["CIoU@0.1"]


def test_a_perfect_model_without_names_is_perfect(make_manifest: Make, tone_engine: Make) -> None:
    manifest = make_manifest(6)
    named = evaluate(tone_engine(), manifest, ["adaptive"], ["given"], bootstrap=0)[0]
    found = evaluate(nameless(tone_engine(), lambda maps: maps[:, ::-1], 4), manifest, ["adaptive"], ["given"])[0]
    for name in ("CAP", "PIAP", "CIoU@0.5", "AUC"):
        assert found["metrics"][name] == pytest.approx(named["metrics"][name])
    assert found["metrics"]["surplus maps per image"] == 2


def test_a_ranking_has_the_matched_maps_and_the_hottest_of_a_negative(
    make_manifest: Make, tone_engine: Make, scene_type: Make
) -> None:
    scenes = [scene_type(sounding=(("bell", A),)), scene_type(silent=(("drum", B),)), scene_type(hidden=("horn",))]
    manifest = make_manifest(scenes)

    def maps_of(maps: Array) -> Array:
        # the bell's map is never the hottest
        return np.stack([np.full_like(maps[:, 0], 0.9), maps[:, 0]], axis=1)

    result = evaluate(nameless(tone_engine(), maps_of, 2), manifest, ["slavc"], ["given"], bootstrap=0)[0]
    assert result["negatives"] == 2
    assert result["metrics"]["recall at max-F1@0.3"] == 100
    # both negatives are hotter
    assert result["metrics"]["precision at max-F1@0.3"] == pytest.approx(100 / 3)


def test_what_needs_classes_is_refused(make_manifest: Make, tone_engine: Make) -> None:
    manifest, engine = make_manifest(2), nameless(tone_engine(), random_maps(2), 2)
    with pytest.raises(InputError, match=r"^this model gives maps of sources without a name and predicts no classes"):
        evaluate(engine, manifest)
    with pytest.raises(InputError, match="dsol does not suit .*: it compares the maps of classes and this model"):
        evaluate(engine, manifest, ["dsol"], ["given"])
    with pytest.raises(InputError, match="video does not suit .*: it needs classes and this model"):
        evaluate(engine, manifest, ["video"], ["given"])
    silent = replace(manifest, items=tuple(replace(item, sources=()) for item in manifest.items))
    assert evaluate(engine, silent, classes=["given"])[0]["metrics"]["CAP"] is None


def test_an_assignment_leaves_the_weakest_out() -> None:
    few = best_assignment(np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.6]]))
    assert few.tolist() == [0, -1, 1]
    assert best_assignment(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.7]])).tolist() == [0, 2]
    assert best_assignment(np.zeros((0, 2))).tolist() == [-1, -1]


def test_mix_and_localize_is_evaluated_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SceneConfig(split="test", sources=(1, 3), silent=(1, 1), off_screen=0.0)
    path = synthesize(tmp_path / "set", scenes=4, config=config, seed=1, jobs=1)
    manifest = read_manifest(path)
    torch.manual_seed(0)
    model = build_model(
        preset("avgn-tiny", classes=manifest.classes, system="mix-and-localize", options={"sources": 2})
    )
    checkpoint = str(save_model(model, tmp_path / "c"))
    assert main(["evaluate", checkpoint, str(path)]) == 2
    assert "without a name and predicts no classes: use classes given" in capsys.readouterr().err
    written = tmp_path / "r.json"
    assert main(["evaluate", checkpoint, str(path), "--classes", "given", "--thresholds", str(path)]) == 2
    assert "no presence heads" in capsys.readouterr().err
    given = ["--classes", "given", "--bootstrap", "10"]
    assert main(["evaluate", checkpoint, str(path), *given, "--json", str(written)]) == 0
    assert "matched" in capsys.readouterr().out
    said = predict(TorchEngine(load_model(checkpoint)), manifest).maps
    for result in json.loads(written.read_text()):
        images = []
        for item, maps in zip(manifest.items, said, strict=True):
            masks = list(_masks(item).values())
            whole = [slice(None)] * len(masks)
            images += [_scores(result["protocol"], upsample_bilinear(maps), masks, whole)] if masks else []
        assert len(images) == result["items"] > 1
        for name, value in _expected(images).items():
            assert result["metrics"][name] == pytest.approx(value, abs=1e-6), (result["protocol"], name)
