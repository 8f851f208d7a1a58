"""Items of several pictures: how they are put in, and what their sources are scored on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from avgn.evaluation import evaluate, evaluate_bounds, format_table, predict
from avgn.evaluation.canvas import box_mask
from avgn.runtime.arrays import Array
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest

Make = Callable[..., Any]
A, B, C = (0.05, 0.1, 0.5, 0.6), (0.4, 0.3, 0.95, 0.9), (0.1, 0.5, 0.4, 0.95)


@pytest.fixture
def pairs(make_pairs: Make, scene_type: Make) -> Manifest:
    """Three pairs of two classes, the second with a silent bell beside a sounding drum; one pair of one class."""
    found: Manifest = make_pairs(
        [
            (scene_type(sounding=(("bell", A),)), scene_type(sounding=(("drum", B),))),
            (scene_type(sounding=(("flute", B),)), scene_type(sounding=(("drum", A),), silent=(("bell", C),))),
            (scene_type(sounding=(("horn", C),)), scene_type(sounding=(("flute", B),))),
            (scene_type(sounding=(("bell", A),)), scene_type(sounding=(("bell", B),))),
        ]
    )
    return found


def _bilinear(grid: Array, width: int) -> Array:
    tensor = torch.from_numpy(np.ascontiguousarray(grid, dtype=np.float32))[None, None]
    return np.asarray(torch.nn.functional.interpolate(tensor, size=(224, width), mode="bilinear")[0, 0].numpy())


def _reference(protocol: str, pieces: int, manifest: Manifest, engine: Any, pair_input: str) -> dict[str, float]:
    """The scores of concatenated pairs, written down once more."""
    precision, overlap, frames = [], [], []
    for item, maps in zip(manifest.items, predict(engine, manifest, pair_input=pair_input).maps, strict=True):
        assert maps.shape == (4, 7, 14)
        truth: dict[tuple[str, int], Array] = {}
        for source in (s for s in item.sources if s.sounding):
            assert source.part is not None
            half = box_mask(source.boxes)
            whole = np.zeros((224, 448), dtype=bool)
            whole[:, 224 * source.part : 224 * (source.part + 1)] = half
            if protocol == "source-wise":
                truth[source.label, source.part] = half
            else:
                truth[source.label, 0] = truth.get((source.label, 0), False) | whole
        own = []
        for (label, part), mask in truth.items():
            grids = np.split(maps[manifest.classes.index(label)], pieces, axis=-1)
            score = np.concatenate([_bilinear(grid, 448 // pieces) for grid in grids], axis=1)
            if protocol == "source-wise":
                score = score[:, 224 * part : 224 * (part + 1)]
            binary = score >= np.median(score)
            if protocol == "adaptive":
                binary = np.zeros(score.size, dtype=bool)
                binary[np.argsort(-score.ravel(), kind="stable")[: mask.sum()]] = True
                binary = binary.reshape(score.shape)
            own.append((binary & mask).sum() / (binary | mask).sum())
            precision.append(average_precision_score(mask.ravel(), score.ravel()))
        overlap += own
        frames.append(np.mean(own))
    return {
        "CAP": 100 * float(np.mean(precision)),
        "IoU@0.3": 100 * float(np.mean(np.array(overlap) >= 0.3)),
        "AUC(IoU)": 100 * float(np.mean([np.trapezoid(1.0 * (v >= np.arange(21) / 20), dx=0.05) for v in overlap])),
        "AUC": 100 * float(np.mean([np.trapezoid(1.0 * (v >= np.arange(21) / 20), dx=0.05) for v in frames])),
        "sources": len(overlap),
    }


@pytest.mark.parametrize("protocol", ["source-wise", "frame-wise", "adaptive"])
@pytest.mark.parametrize(("pair_input", "pieces"), [("canvas", 1), ("crops", 2)])
def test_pairs_by_a_reference(
    protocol: str, pair_input: str, pieces: int, pairs: Manifest, tone_engine: Make, noisy: Make
) -> None:
    # steps so small that no two values meet at the median
    [result] = evaluate(noisy(tone_engine(), 2, 1e-5), pairs, [protocol], ["given"], bootstrap=0, pair_input=pair_input)
    expected = _reference(protocol, pieces, pairs, noisy(tone_engine(), 2, 1e-5), pair_input)
    assert result["counts"]["sources"] == expected.pop("sources") == (8 if protocol == "source-wise" else 7)
    for name, value in expected.items():
        assert result["metrics"][name] == pytest.approx(value, abs=0.02), name
    assert result["notes"] == [f"items of 2 pictures were put in as {pair_input}"]
    assert result["floor"]["CAP"] < result["ceiling"]["CAP"]


def test_sounds_are_summed_and_pictures_stand_side_by_side(pairs: Manifest, tone_engine: Make) -> None:
    said = predict(tone_engine(), pairs)
    assert said.pieces == (1,) * 4
    heard = [[pairs.classes[k] for k in np.flatnonzero(prob >= 0.5)] for prob in said.audio_prob]
    assert heard == [["bell", "drum"], ["drum", "flute"], ["flute", "horn"], ["bell"]]
    bell = said.maps[0][0]
    assert bell[:, :7].max() > 0.4 and bell[:, 7:].max() == -0.5
    apart = predict(tone_engine(), pairs, pair_input="crops")
    assert apart.pieces == (2,) * 4
    np.testing.assert_allclose(np.stack(apart.maps), np.stack(said.maps), atol=1e-6)
    assert (apart.visual_prob >= said.visual_prob - 1e-6).all()


def test_an_engine_of_one_width_gets_crops(pairs: Manifest, tone_engine: Make) -> None:
    narrow = evaluate(tone_engine(narrow=True), pairs, ["source-wise"], ["given"], bootstrap=0)[0]
    [note] = narrow.pop("notes")
    assert note == "items of 2 pictures were put in as crops (the engine refused the canvas: ValueError)"
    asked = evaluate(tone_engine(), pairs, ["source-wise"], ["given"], bootstrap=0, pair_input="crops")[0]
    asked.pop("notes")
    assert narrow == asked
    with pytest.raises(InputError, match="pair input 'both' is not known: choose from canvas, crops"):
        evaluate(tone_engine(), pairs, pair_input="both")


def test_the_other_picture_counts_on_the_whole_canvas_only(
    make_pairs: Make, scene_type: Make, tone_engine: Make
) -> None:
    # the silent bell beside the drum looks like the bell that sounds
    manifest = make_pairs(
        [(scene_type(sounding=(("bell", A),)), scene_type(sounding=(("drum", B),), silent=(("bell", C),)))]
    )
    own, whole = evaluate(tone_engine(), manifest, ["source-wise", "frame-wise"], ["given"], bootstrap=0)
    assert own["metrics"]["CAP"] > whole["metrics"]["CAP"] + 10
    assert own["items"] == whole["items"] == 1


def test_pairs_of_one_class_share_a_map_and_stand_apart(pairs: Manifest, tone_engine: Make) -> None:
    results = evaluate(tone_engine(), pairs, ["source-wise", "frame-wise"], bootstrap=0)
    for result in results:
        apart = result["same_class"]
        assert apart["items"] == 1 and apart["metrics"]["PIAP"] > 85
        assert apart["metrics"]["PIAP"] == pytest.approx(apart["metrics"]["CAP"])
        if result["classes"] == "predicted":
            assert result["metrics"]["false sources per image"] == result["metrics"]["missed sources per image"] == 0
        if result["protocol"] == "source-wise":
            assert result["metrics"]["F1@0.1"] == 100
    assert "1 items that show one class twice" in format_table(results)
    other = evaluate(tone_engine(), replace(pairs, items=pairs.items[:3]), ["source-wise"], bootstrap=0)
    assert all("same_class" not in result for result in other)


def test_single_pictures_and_pairs_in_one_manifest(pairs: Manifest, make_manifest: Make, tone_engine: Make) -> None:
    single = make_manifest(3)
    mixed = replace(pairs, items=(single.items[0], *pairs.items[:2], *single.items[1:]))
    results = evaluate(tone_engine(), mixed, bootstrap=0, batch_size=2)
    assert [r["items"] for r in results] == [5] * 6
    parts = [evaluate(tone_engine(), replace(pairs, items=i), bootstrap=0) for i in (single.items, pairs.items[:2])]
    for whole, one, two in zip(results, *parts, strict=True):
        counts = [r["counts"]["sources"] for r in (one, two)]
        assert whole["metrics"]["CAP"] == pytest.approx(
            np.average([one["metrics"]["CAP"], two["metrics"]["CAP"]], weights=counts), abs=1e-4
        )


def test_protocols_of_one_source_refuse_pairs(pairs: Manifest, tone_engine: Make) -> None:
    for name in ("lvs", "ezvsl", "slavc"):
        with pytest.raises(InputError, match=f"protocol {name} does not suit .*4 of 4 items have several"):
            evaluate(tone_engine(), pairs, [name])
    assert evaluate(tone_engine(), pairs, ["dsol"], ["given"], bootstrap=0)[0]["items"] == 4


def test_unreadable_parts_are_named_or_counted(pairs: Manifest, tone_engine: Make) -> None:
    pairs.items[1].parts[1].frame.write_bytes(b"no picture")
    with pytest.raises(InputError, match="'pair001'.*pair001_1.png"):
        evaluate(tone_engine(), pairs)
    assert evaluate(tone_engine(), pairs, skip_bad=True, bootstrap=0)[0]["skipped"] == {"unreadable": 1}


def test_bounds_of_pairs_without_a_model(pairs: Manifest, tone_engine: Make) -> None:
    scored = evaluate(tone_engine(), pairs, classes=["given"], bootstrap=0)
    for result, other in zip(evaluate_bounds(pairs, grid=(7, 7)), scored, strict=True):
        for bound in ("floor", "chance", "ceiling"):
            assert result[bound] == {k: v for k, v in other[bound].items() if k != "NSA"}
        assert result["items"] == other["items"] and result["metrics"] == {}
