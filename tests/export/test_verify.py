"""What is measured between two engines and what is refused, against loops over made-up outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from avgn.engine import TorchEngine
from avgn.export.samples import InputBatch
from avgn.export.verify import (
    BATCHES,
    SCENE_RATE,
    audio_difference,
    check_scorable,
    check_tolerance,
    compare,
    render_batch,
    rendered_batches,
)
from avgn.runtime.arrays import Array
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.contract import ALL_OUTPUTS
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.image import resize
from avgn.runtime.manifest import Item, Manifest, Source
from avgn.scenes import SceneConfig, render_scene
from avgn.scenes.synth import RATE
from tests.export.models import small_model

SHAPES = {"sources": (3, 5), "audio_prob": (3,), "maps": (3, 2, 4), "visual_prob": (3,)}


@dataclass
class Says:
    """An engine that gives what it was told, one batch after the other; it notes which sources it was given."""

    batches: list[dict[str, Array]]

    def __post_init__(self) -> None:
        self.at = -1
        self.given: list[Array] = []

    def run_audio(self, waveform: Array) -> dict[str, Array]:
        self.at += 1
        return {name: self.batches[self.at][name] for name in ("sources", "audio_prob")}

    def run_image(self, image: Array, sources: Array) -> dict[str, Array]:
        self.given.append(sources)
        return {name: self.batches[self.at][name] for name in ("maps", "visual_prob")}


def outputs(counts: tuple[int, ...], seed: int = 0, loud: float = 1.0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [
        {name: (loud * rng.uniform(-0.9, 0.9, (count, *shape))).astype(np.float32) for name, shape in SHAPES.items()}
        for count in counts
    ]


def samples(counts: tuple[int, ...]) -> list[InputBatch]:
    return [InputBatch(waveform=np.zeros((n, 8), np.float32), image=np.zeros((n, 4, 4, 3), np.uint8)) for n in counts]


def measured(one: list[dict[str, Array]], other: list[dict[str, Array]]) -> dict[str, float]:
    counts = tuple(len(batch["maps"]) for batch in one)
    return compare(Says(one), Says(other), samples(counts))  # type: ignore[arg-type]


@pytest.mark.parametrize("loud", [1.0, 40.0], ids=["within one", "loud"])
def test_every_number_is_what_a_loop_finds(loud: float) -> None:
    counts = (2, 3, 1)
    expected, noise = outputs(counts, loud=loud), outputs(counts, seed=1, loud=0.3 * loud)
    found = [{name: batch[name] + more[name] for name in SHAPES} for batch, more in zip(expected, noise, strict=True)]
    metrics = measured(expected, found)
    for name in ALL_OUTPUTS:
        largest, means = [], []
        for truth, other in zip(expected, found, strict=True):
            size = max(1.0, max(abs(float(v)) for v in truth[name].ravel()))
            errors = [
                abs(float(a) - float(b)) / size for a, b in zip(truth[name].ravel(), other[name].ravel(), strict=True)
            ]
            largest.append(max(errors))
            means.append(sum(errors) / len(errors))
        assert metrics[f"max_abs_{name}"] == pytest.approx(max(largest), rel=1e-5)
        assert metrics[f"mean_abs_{name}"] == pytest.approx(sum(means) / 3, rel=1e-5)
    cosines = []
    for truth, other in zip(expected, found, strict=True):
        for a, b in zip(truth["maps"], other["maps"], strict=True):
            x, y = a.ravel().astype(float), b.ravel().astype(float)
            cosines.append(float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)))
    # the worst of all samples, not the mean, nor the worst mean of a batch
    assert metrics["cosine_maps"] == pytest.approx(min(cosines)) and min(cosines) < sum(cosines) / 6 - 0.01
    assert metrics["cosine_maps_mean"] == pytest.approx(sum(cosines) / 6)
    assert metrics["scenes"] == 6


def test_equal_outputs_differ_by_nothing_and_the_halves_are_chained() -> None:
    said = outputs((2, 1))
    core, engine = Says(said), Says(outputs((2, 1)))
    metrics = compare(core, engine, samples((2, 1)))  # type: ignore[arg-type]
    assert metrics["cosine_maps"] == pytest.approx(1.0)
    assert all(metrics[f"max_abs_{name}"] == 0.0 for name in ALL_OUTPUTS)
    # each engine's image half hears its own audio half: errors add up as they will in use
    for one in (core, engine):
        assert all(np.array_equal(given, batch["sources"]) for given, batch in zip(one.given, said, strict=True))
    silent = [{name: np.zeros_like(value) for name, value in batch.items()} for batch in said]
    assert measured(silent, silent)["cosine_maps"] == 0.0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-cpu", "int8-gpu"])
@pytest.mark.parametrize("name", ALL_OUTPUTS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [0, 1], ids=["first batch", "last batch"])
def test_what_is_not_finite_is_never_verified(precision: str, name: str, wrong: float, place: int) -> None:
    expected, found = outputs((2, 2)), outputs((2, 2))
    found[place][name].ravel()[1] = wrong
    with np.errstate(invalid="ignore"), pytest.raises(FailureError, match="differ from the model"):
        check_tolerance(measured(expected, found), precision)


def exact(**changed: float) -> dict[str, float]:
    zero = {f"max_abs_{name}": 0.0 for name in ALL_OUTPUTS}
    return zero | {"cosine_maps": 1.0, "cosine_maps_mean": 1.0} | changed


@pytest.mark.parametrize("name", ALL_OUTPUTS)
def test_fp32_may_differ_by_a_hundred_thousandth_in_each_output(name: str) -> None:
    check_tolerance(exact(**{f"max_abs_{name}": 1e-5}), "fp32")
    message = f"the fp32 graphs differ from the model: max_abs_{name} is 1.01e-05, allowed is 1e-05"
    with pytest.raises(FailureError, match=message):
        check_tolerance(exact(**{f"max_abs_{name}": 1.01e-5}), "fp32")
    # the others are judged by their cosine, fp32 is not
    check_tolerance(exact(**{f"max_abs_{name}": 0.5}), "int8-cpu")
    check_tolerance(exact(cosine_maps=0.0, cosine_maps_mean=0.0), "fp32")


@pytest.mark.parametrize(
    ("precision", "name", "least"),
    [
        ("fp16", "cosine_maps", 0.9995),
        ("int8-cpu", "cosine_maps_mean", 0.98),
        ("int8-gpu", "cosine_maps_mean", 0.98),
    ],
)
def test_fp16_is_judged_by_its_worst_scene_and_int8_by_the_mean(precision: str, name: str, least: float) -> None:
    other = {"cosine_maps": "cosine_maps_mean", "cosine_maps_mean": "cosine_maps"}[name]
    check_tolerance(exact(**{name: least, other: 0.0}), precision)
    with pytest.raises(FailureError, match=f"the {precision} graphs differ.*{name} is {least - 1e-5:.5f}, at least"):
        check_tolerance(exact(**{name: least - 1e-5}), precision)
    with pytest.raises(FailureError, match=f"{name} is nan"):
        check_tolerance(exact(**{name: math.nan}), precision)


def test_rendered_batches_are_of_several_sizes_and_different_scenes() -> None:
    info = TorchEngine(small_model()).info
    made = rendered_batches(info, (1, 2, 1, 1, 1))
    # the fourth is as large as the first, the fifth begins again
    sizes = [(64, 96), (96, 96), (64, 160), (64, 96), (64, 96)]
    assert [batch.image.shape for batch in made] == [
        (count, *size, 3) for count, size in zip((1, 2, 1, 1, 1), sizes, strict=True)
    ]
    assert all(batch.waveform.shape == (len(batch.image), info.window_samples) for batch in made)
    assert all(batch.waveform.dtype == np.float32 and batch.image.dtype == np.uint8 for batch in made)
    sounds = np.concatenate([batch.waveform for batch in made])
    assert len(np.unique(sounds, axis=0)) >= 5
    # each batch goes on where the one before ended
    np.testing.assert_array_equal(sounds[3], render_batch(info, 1, 3).waveform[0])
    np.testing.assert_array_equal(render_batch(info, 2, 1).waveform[1], render_batch(info, 1, 2).waveform[0])
    assert BATCHES == (1, 2, 5, 8)


def test_a_batch_begins_at_the_first_scene_and_scenes_are_those_of_the_seed() -> None:
    info = TorchEngine(small_model()).info
    config = SceneConfig(split="val", sources=(0, 3))
    plain, third = render_batch(info, 1), render_batch(info, 1, 2)
    assert plain.image.shape == (1, 64, 96, 3)
    for batch, number in ((plain, 0), (third, 2)):
        scene = render_scene(config, 20_231, number)
        assert np.array_equal(batch.image[0], resize(scene.frame, (64, 96)))
        assert np.array_equal(batch.waveform[0], fit_window(resample(scene.audio, RATE, 22_050), info.window_samples))
    assert SCENE_RATE == RATE == 22_050


def test_quiet_maps_have_the_cosine_of_loud_ones() -> None:
    expected, found = outputs((3,)), outputs((3,), seed=1)
    loud = measured(expected, found)["cosine_maps"]
    for batch in (*expected, *found):
        batch["maps"] *= np.float32(1e-3)
    assert measured(expected, found)["cosine_maps"] == pytest.approx(loud, rel=1e-5)


class Loud(TorchEngine):
    """Hands over sources as long as the released variant's."""

    def run_audio(self, waveform: Array) -> dict[str, Array]:
        heard = super().run_audio(waveform)
        return heard | {"sources": 40 * heard["sources"]}


@pytest.mark.parametrize("kind", [TorchEngine, Loud])
def test_the_sources_difference_is_that_of_compare(kind: type[TorchEngine]) -> None:
    core, moved = kind(small_model()), small_model()
    engine = kind(moved)
    assert audio_difference(core, engine) == 0.0
    moved.get_parameter("audio_encoder.project.bias").data[0] += 0.01
    truth = compare(core, engine, rendered_batches(core.info))["max_abs_sources"]
    assert audio_difference(core, engine) == pytest.approx(truth) and truth > 1e-4


def test_accuracy_needs_a_source_that_sounds_is_seen_and_has_a_place() -> None:
    good = Source(label="red", sounding=True, on_screen=True, boxes=((0.1, 0.1, 0.5, 0.5),))

    def manifest(*sources: Source) -> Manifest:
        item = Item(id="a", sources=sources, split="test", dataset="", video="v")
        return Manifest(path=Path("m.jsonl"), classes=("red",), items=(item,))

    bad = [replace(good, sounding=False), replace(good, on_screen=False), replace(good, boxes=())]
    check_scorable(manifest(*bad, good))
    check_scorable(manifest(replace(good, boxes=(), mask=Path("mask.png"))))
    for each in bad:
        with pytest.raises(InputError, match="has no source that sounds, is seen and has a box or a mask"):
            check_scorable(manifest(each))
