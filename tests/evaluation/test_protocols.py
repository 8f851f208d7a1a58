"""Every named protocol through a whole evaluation, against a reference that looks at one pixel after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from avgn.evaluation import evaluate, predict
from avgn.evaluation.canvas import box_mask, upsample_bicubic
from avgn.evaluation.choice import choose_protocols, map_limit
from avgn.evaluation.protocols import PROTOCOLS, fixed_range
from avgn.runtime.arrays import Array
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest, Source

Make = Callable[..., Any]
BOXES = ((0.05, 0.1, 0.45, 0.6), (0.3, 0.5, 0.9, 0.95), (0.55, 0.05, 0.8, 0.3), (0.1, 0.1, 0.95, 0.9))


@pytest.fixture
def solos(make_manifest: Make, scene_type: Make) -> Manifest:
    labels = ("bell", "drum", "flute", "horn")
    scenes = [
        scene_type(sounding=((label, box),), silent=((labels[n - 1], (0.0, 0.9, 0.08, 1.0)),))
        for n, (label, box) in enumerate(zip(labels, BOXES, strict=True))
    ]
    found: Manifest = make_manifest(scenes)
    return replace(found, items=tuple(replace(item, dataset="music-solo-like") for item in found.items))


def _upsample(grid: Array, mode: str) -> Array:
    tensor = torch.from_numpy(np.asarray(grid, dtype=np.float32))[None, None]
    return torch.nn.functional.interpolate(tensor, size=(224, 224), mode=mode)[0, 0].numpy().astype(np.float64)


def _reference_iou(name: str, score: Array, mask: Array) -> float:
    """IoU of one upsampled map, pixel by pixel."""
    pixels = [float(v) for v in score.ravel()]
    ordered = sorted(pixels)
    median = (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2
    inside = union = 0
    largest = max(pixels)
    for value, true in zip(pixels, mask.ravel().tolist(), strict=True):
        chosen = {
            "source-wise": value >= median,
            "frame-wise": value >= median,
            "lvs": value > median,
            "ezvsl": value >= median,
            "slavc": (value + 1) / 2 >= 0.5,
            "dsol": value > 0.1 * largest,
            "release": value >= median,
        }[name]
        inside += chosen and true
        union += chosen or true
    return inside / union


@pytest.mark.parametrize("name", ["source-wise", "frame-wise", "lvs", "ezvsl", "slavc", "dsol", "release"])
def test_a_protocol_is_its_row_of_the_table(name: str, solos: Manifest, tone_engine: Make, noisy: Make) -> None:
    [result] = evaluate(noisy(tone_engine(), 3, 1e-4), solos, [name], ["given"], bootstrap=20)
    said = predict(noisy(tone_engine(), 3, 1e-4), solos)
    mode = "bicubic" if name in ("slavc", "release") else "bilinear"
    overlap, precision = [], []
    for item, maps in zip(said.items, said.maps, strict=True):
        source = next(s for s in item.sources if s.sounding)
        score = _upsample(maps[solos.classes.index(source.label)], mode)
        box = source.boxes[0]
        # the release takes x, y, w, h of MUSIC for corners
        mask = box_mask([(box[0], box[1], box[2] - box[0], box[3] - box[1])] if name == "release" else [box])
        if mask.any():
            overlap.append(_reference_iou(name, score, mask))
            precision.append(average_precision_score(mask.ravel(), score.ravel()))
    assert result["items"] == len(overlap) >= 2 and result["counts"]["sources"] == len(overlap)
    for level in (0.1, 0.3, 0.5):
        assert result["metrics"][f"IoU@{level}"] == pytest.approx(100 * np.mean(np.array(overlap) >= level))
    rates = [np.mean(np.array(overlap) >= i / 20) for i in range(21)]
    assert result["metrics"]["AUC(IoU)"] == pytest.approx(100 * np.trapezoid(rates, np.arange(21) / 20))
    assert result["metrics"]["CAP"] == pytest.approx(100 * np.mean(precision), abs=0.01)
    assert result["metrics"]["AUC(IoU)"] <= result["ceiling"]["AUC(IoU)"] + 5
    assert result["ci95"]["IoU@0.3"] is not None


def test_nsa_of_dsol_is_on_softmax_maps(solos: Manifest, tone_engine: Make, noisy: Make) -> None:
    engine = noisy(tone_engine(model={"config": {"temperature": 0.2}}), 3)
    [result] = evaluate(engine, solos, ["dsol"], ["given"], bootstrap=0)
    quiet = []
    for item, maps in zip(solos.items, predict(noisy(tone_engine(), 3), solos).maps, strict=True):
        canvas = np.stack([_upsample(grid, "bilinear") for grid in maps]) / 0.2
        soft = np.exp(canvas) / np.exp(canvas).sum(axis=0)
        sounds = {s.label for s in item.sources if s.sounding}
        quiet.append(np.mean([(soft[k] <= 0.2).mean() for k, c in enumerate(solos.classes) if c not in sounds]))
    assert result["metrics"]["NSA"] == pytest.approx(100 * np.mean(quiet), abs=0.01)
    assert result["ceiling"]["NSA"] == 100 and result["floor"]["NSA"] == 0
    [scaled] = evaluate(engine, solos, ["adaptive"], ["given"], bootstrap=0)
    assert "NSA" not in scaled["metrics"]


@pytest.mark.parametrize(("dataset", "share"), [("dsol-solo", 0.1), ("music-duet", 0.2), ("my-synthetic-set", 0.5)])
def test_dsol_takes_its_threshold_from_the_data_set(solos: Manifest, dataset: str, share: float) -> None:
    items = tuple(replace(item, dataset=dataset) for item in solos.items)
    [protocol] = choose_protocols(["dsol"], replace(solos, items=items), ["given"]).protocols
    score = np.array([[1.0, share, np.nextafter(share, 1), 0.0]])
    assert protocol.binary(score, score > 0)[0].tolist() == [[True, False, True, False]]
    [forced] = choose_protocols(["dsol"], solos, ["given"], dsol_share=0.3).protocols
    assert forced.binary(np.array([[1.0, 0.3, 0.31]]), np.ones((1, 3)))[0].tolist() == [[True, False, True]]
    with pytest.raises(InputError, match="between 0 and 1, got 1.5"):
        choose_protocols(["dsol"], solos, ["given"], dsol_share=1.5)


def test_slavc_takes_the_scores_of_the_release_as_they_are() -> None:
    cosine = np.linspace(-1, 1, 9).reshape(1, 3, 3)
    # a cosine divided by tau within -1/tau..1/tau is the cosine within -1..1
    np.testing.assert_allclose(fixed_range(1.0)(cosine), fixed_range(1 / 0.03)(cosine / 0.03))
    assert fixed_range(1.0)(cosine).min() == 0 and fixed_range(1.0)(cosine).max() == 1


@pytest.mark.parametrize(("system", "limit"), [("avgn-released", 20.0), ("avgn", 1.0)])
def test_maps_that_are_divided_by_the_temperature_reach_its_inverse(
    system: str, limit: float, tone_engine: Make
) -> None:
    info = tone_engine(model={"config": {"system": system, "temperature": 0.05}}).info
    assert map_limit(info) == pytest.approx(limit)


def test_an_object_prior_is_mixed_in(solos: Manifest, tone_engine: Make, noisy: Make) -> None:
    def prior(image: Array) -> Array:
        assert image.shape == (112, 112, 3)
        return np.asarray(-np.abs(np.arange(14.0)[:, None] - image[0, 0, 0] / 20 - np.arange(14.0)))

    [mixed] = evaluate(noisy(tone_engine(), 3), solos, ["ezvsl"], ["given"], bootstrap=0, object_prior=prior)
    said = predict(noisy(tone_engine(), 3), solos, object_prior=prior)
    assert said.priors is not None
    precision = []
    for item, maps, own in zip(said.items, said.maps, said.priors, strict=True):
        source = next(s for s in item.sources if s.sounding)
        score, where = (_upsample(g, "bilinear") for g in (maps[solos.classes.index(source.label)], own))
        mix = 0.4 * (score - score.min()) / np.ptp(score) + 0.6 * (where - where.min()) / np.ptp(where)
        precision.append(average_precision_score(box_mask(source.boxes).ravel(), mix.ravel()))
    assert mixed["metrics"]["CAP"] == pytest.approx(100 * np.mean(precision), abs=0.01)
    assert any("weight 0.6" in note for note in mixed["notes"])
    [alone] = evaluate(noisy(tone_engine(), 3), solos, ["ezvsl"], ["given"], bootstrap=0)
    [wise] = evaluate(noisy(tone_engine(), 3), solos, ["source-wise"], ["given"], bootstrap=0)
    assert any("alpha is 1" in note for note in alone["notes"])
    assert alone["metrics"] == wise["metrics"]


def test_release_warns(solos: Manifest, tone_engine: Make, caplog: pytest.LogCaptureFixture) -> None:
    [result] = evaluate(tone_engine(), solos, ["release"], ["given"], bootstrap=0)
    assert "known errors" in caplog.text and "known errors" in result["notes"][0]
    # two of the four boxes have no pixel when they are read as corners
    assert result["skipped"] == {"empty mask": 2}


@pytest.mark.parametrize("name", ["source-wise", "lvs", "ezvsl", "release"])
def test_flat_maps_are_chance_where_maps_are_scaled(
    name: str, make_manifest: Make, tone_engine: Make, scene_type: Make
) -> None:
    manifest = make_manifest([scene_type(sounding=(("bell", (0.0, 0.0, 0.8, 0.9)),))])
    horn = Source(label="horn", sounding=True, on_screen=True, boxes=((0.0, 0.0, 0.8, 0.9),))
    items = (replace(manifest.items[0], sources=(horn,)),)
    [result] = evaluate(tone_engine(), replace(manifest, items=items), [name], ["given"], bootstrap=0)
    assert result["counts"]["flat maps"] == 1
    for metric in ("CAP", "AUC(IoU)", "AUC", "PIAP"):
        assert result["metrics"][metric] == pytest.approx(result["chance"][metric])


def test_all_runs_what_suits_and_says_why_not(solos: Manifest, tone_engine: Make, make_manifest: Make) -> None:
    results = evaluate(tone_engine(), solos, ["all"], bootstrap=0)
    scored = {(r["protocol"], r["classes"]) for r in results if r["metrics"]}
    twice = {"source-wise", "frame-wise", "adaptive"}
    assert scored == {(p, "given") for p in PROTOCOLS} | {(p, "predicted") for p in twice}
    [left] = [r for r in results if not r["metrics"]]
    assert left["protocol"] == "video" and left["skipped"] == {"no item has a video_file": 4}
    several = evaluate(tone_engine(), make_manifest(4), ["all"], bootstrap=0)
    left_out = {r["protocol"]: next(iter(r["skipped"])) for r in several if not r["metrics"]}
    assert set(left_out) == {"lvs", "ezvsl", "slavc", "dsol", "video"}
    assert "4 of 4 items have several" in left_out["lvs"] and "'tones'" in left_out["dsol"]


@pytest.mark.parametrize("grid", [(7, 7), (5, 9), (14, 14), (28, 28)])
def test_bicubic_upsampling_is_torchs(grid: tuple[int, int]) -> None:
    maps = np.random.default_rng(1).normal(size=(2, *grid)).astype(np.float32)
    maps[1] = np.float32(0.1)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(224, 224), mode="bicubic")[0].numpy()
    np.testing.assert_allclose(upsample_bicubic(maps), theirs, atol=1e-4)
    assert np.ptp(upsample_bicubic(maps)[1]) == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(-10, 10),
    name=st.sampled_from(["source-wise", "lvs", "ezvsl", "adaptive", "release"]),
)
def test_scaled_protocols_see_the_order_of_pixels_only(seed: int, gain: float, offset: float, name: str) -> None:
    rng = np.random.default_rng(seed)
    score = rng.permutation(144).reshape(12, 12).astype(np.float64)
    mask = rng.random((12, 12)) < rng.uniform(0.1, 0.9)
    protocol = PROTOCOLS[name]
    binary, _ = protocol.binary(score, mask)
    assert (binary == protocol.binary(gain * score + offset, mask)[0]).all()
    count = mask.sum() if name == "adaptive" else 72
    assert binary.sum() == count
