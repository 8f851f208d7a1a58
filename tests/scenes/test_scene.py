"""Scenes: purity, exact truth, levels, areas and what a scene may hold."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kstest

from avgn.runtime.errors import InputError
from avgn.scenes import (
    CLASSES,
    Scene,
    SceneConfig,
    render_scene,
    render_single_object,
    render_single_waveform,
    render_swap,
)
from avgn.scenes.backgrounds import FAMILIES
from avgn.scenes.noise import KINDS
from avgn.scenes.scene import SIZES

NUM_SCENES = 120


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(SceneConfig(split="train"), 11, index) for index in range(NUM_SCENES)]


def test_there_are_at_least_eight_sorted_classes() -> None:
    assert len(CLASSES) >= 8
    assert list(CLASSES) == sorted(set(CLASSES))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_scene_is_a_pure_function(split: str) -> None:
    config = SceneConfig(split=split, sources=(2, 3))
    first, again, other = (render_scene(config, 5, index) for index in (3, 3, 4))
    assert np.array_equal(first.frame, again.frame) and np.array_equal(first.audio, again.audio)
    assert not np.array_equal(first.audio, other.audio)


def test_boxes_are_the_tight_boxes_of_the_masks(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width = scene.frame.shape[:2]
        for thing in scene.objects:
            if thing.mask is None:
                assert thing.box is None and not thing.on_screen
                continue
            rows, columns = np.nonzero(thing.mask)
            expected = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width)
            assert thing.box == pytest.approx((*expected, (rows.max() + 1) / height))


def test_masks_are_disjoint_and_three_quarters_visible(scenes: list[Scene]) -> None:
    for scene in scenes:
        masks = [thing.mask for thing in scene.objects if thing.mask is not None]
        assert np.sum([np.zeros(scene.frame.shape[:2]), *masks], axis=0).max() <= 1
        for thing in scene.objects:
            if thing.mask is not None and thing.full_area is not None:
                assert thing.mask.mean() >= 0.75 * thing.full_area - 1e-9


def test_the_frame_shows_the_object_where_the_mask_is() -> None:
    inside, across = [], []
    for seed in range(12):
        frame, mask = render_single_object(CLASSES[seed % len(CLASSES)], "train", seed)
        flat = frame.astype(float).mean(axis=2)
        edge = np.abs(np.diff(flat, axis=1))
        boundary = mask[:, 1:] != mask[:, :-1]
        across.append(edge[boundary].mean())
        inside.append(np.median(edge[~boundary]))
    assert np.mean(across) > 3 * np.mean(inside)


def test_no_class_twice_and_no_silent_thing_of_a_sounding_class(scenes: list[Scene]) -> None:
    for scene in scenes:
        labels = [thing.label for thing in scene.objects]
        assert len(set(labels)) == len(labels)
        for thing in scene.objects:
            assert (thing.stem is not None) == thing.sounding
            assert thing.sounding or thing.on_screen
    assert any(not thing.on_screen for scene in scenes for thing in scene.objects)
    assert any(not thing.sounding for scene in scenes for thing in scene.objects)


def test_scenes_are_varied(scenes: list[Scene]) -> None:
    assert {scene.frame.shape[1::-1] for scene in scenes} == set(SIZES)
    assert {scene.background for scene in scenes} == set(FAMILIES["train"])
    assert {scene.noise for scene in scenes} >= set(KINDS)
    assert {thing.label for scene in scenes for thing in scene.objects} == set(CLASSES)
    counts = [sum(thing.sounding for thing in scene.objects) for scene in scenes]
    assert set(counts) == {0, 1, 2, 3}


def test_the_mixture_is_stems_plus_noise_at_the_stated_ratio(scenes: list[Scene]) -> None:
    ratios = []
    for scene in scenes:
        stems = [thing.stem for thing in scene.objects if thing.stem is not None]
        if not stems:
            assert scene.snr_db is None
            continue
        signal = np.sum(stems, axis=0, dtype=np.float64)
        noise = scene.audio - signal
        assert scene.snr_db is not None
        assert 10 * np.log10(np.mean(signal**2) / np.mean(noise**2)) == pytest.approx(scene.snr_db, abs=0.5)
        ratios.append(scene.snr_db)
    assert min(ratios) < 5 and max(ratios) > 25


def test_loudness_and_relative_levels(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert np.abs(scene.audio).max() < 1
        powers = [np.mean(thing.stem**2) for thing in scene.objects if thing.stem is not None]
        loudness = 10 * np.log10(np.mean(scene.audio**2) + 1e-12)
        if powers:
            assert -45 < loudness < -11.5
            assert 10 * np.log10(max(powers) / min(powers)) <= 8.01


def test_scenes_without_sources_hold_noise_or_digital_silence() -> None:
    config = SceneConfig(split="val", sources=(0, 0), seconds=0.3, size=(64, 64))
    quiet = [render_scene(config, 0, index) for index in range(80)]
    silent = [scene for scene in quiet if scene.noise == "silence"]
    assert all(not scene.audio.any() for scene in silent)
    assert all(scene.audio.any() for scene in quiet if scene.noise != "silence")
    assert 3 <= len(silent) <= 24


def test_areas_are_log_uniform_between_3_and_20_percent() -> None:
    config = SceneConfig(split="train", sources=(1, 1), silent=(0, 0), off_screen=0, seconds=0.1, size=(160, 160))
    areas = [render_scene(config, 2, index).objects[0].full_area or 0 for index in range(200)]
    assert min(areas) >= 0.03 and max(areas) <= 0.20
    assert kstest(np.log(areas), "uniform", args=(np.log(0.03), np.log(0.20 / 0.03))).pvalue > 0.01


def test_crowded_scenes_lose_nothing() -> None:
    config = SceneConfig(split="test", sources=(4, 4), silent=(2, 2), off_screen=0, seconds=0.1, size=(296, 168))
    for index in range(8):
        scene = render_scene(config, 0, index)
        assert len(scene.objects) == 6
        assert all(thing.mask is not None and thing.mask.any() for thing in scene.objects)


def test_a_swap_pair_has_one_frame_and_two_sounds() -> None:
    pair = render_swap(SceneConfig(split="test"), 0, 7)
    assert pair.labels[0] != pair.labels[1]
    assert all(mask.any() for mask in pair.masks) and not (pair.masks[0] & pair.masks[1]).any()
    assert pair.audio_a.shape == pair.audio_b.shape == (66_150,)
    assert not np.array_equal(pair.audio_a, pair.audio_b)


@pytest.mark.parametrize("label", CLASSES)
def test_every_second_of_a_sound_is_audible(label: str) -> None:
    for seed in range(6):
        sound = render_single_waveform(label, "train", seed, 4.0)
        windows = np.array([np.mean(sound[k : k + 22_050] ** 2) for k in range(0, len(sound) - 22_050, 2205)])
        assert 10 * np.log10(windows.min() / np.mean(sound**2)) > -6
        frames = np.mean(sound[: len(sound) // 220 * 220].reshape(-1, 220) ** 2, axis=1)
        quiet = "".join("q" if power < 1e-3 * frames.max() else "." for power in frames)
        assert max(len(run) for run in quiet.split(".")) * 0.01 <= 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split 'dev' is not known"),
        ({"split": "train", "sources": (3, 1)}, "sources 3-1 is no range"),
        ({"split": "train", "silent": (-1, 1)}, "silent -1-1 is no range"),
        ({"split": "train", "sources": (0, 9)}, "use at most 6"),
        ({"split": "train", "off_screen": 1.5}, "off_screen 1.5 is no probability"),
        ({"split": "train", "size": (10, 10)}, "width and height must lie in"),
        ({"split": "train", "size": (1000, 100)}, "too narrow"),
        ({"split": "train", "seconds": 0.0}, "seconds 0.0 is not usable"),
        ({"split": "train", "seconds": float("nan")}, "seconds nan is not usable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_configurations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SceneConfig(**options)  # type: ignore[arg-type]


def test_bad_labels_and_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="class 'tuba' is not known"):
        render_single_waveform("tuba", "train", 0)
    with pytest.raises(InputError, match="split 'x' is not known"):
        render_single_object(CLASSES[0], "x", 0)
    with pytest.raises(InputError, match="must not be negative"):
        render_scene(SceneConfig(split="train"), -1, 0)


def test_numpy_and_opencv_suffice() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'av', 'sklearn', 'PIL'): sys.modules[name] = None\n"
        "from avgn.scenes import SceneConfig, render_scene\n"
        "print(render_scene(SceneConfig(split='test'), 0, 0).frame.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
