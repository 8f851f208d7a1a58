"""The fit of the audio rows: mixtures by seed, the model's own presence, a planted correction found, free sources."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avgn.encoders.packages import FOLDER, YAMNET, YAMNET_CLASSES, read_onnx_numbers
from avgn.encoders.yamnet import RATE, rename
from avgn.export.world import main as make_world
from avgn.runtime.bundle import file_sha256
from avgn.runtime.errors import FailureError, InputError
from avgn.world.classes import NOISES, audioset_names, find_classes, world_classes
from avgn.world.refit import read_refit
from avgn.world.settings import LOUDEST, NOISE_LEAD, NOISE_WEIGHT
from recipes.world import fetch, sources
from recipes.world.__main__ import PLANS, enough, main, summarize
from recipes.world.encode import make_examples
from recipes.world.fit import Evidence, FitConfig, fit_rows, presence, published_evidence
from recipes.world.mix import Plan, Waveforms, mix
from recipes.world.phrases import DRUMS, SECONDS, compose, seed_of
from recipes.world.programs import EFFECTS, INSTRUMENTS
from recipes.world.sources import NOISE, PACKAGES, RECORDINGS, Package
from tests.core.published import needs
from tests.world.test_world import some_model

ROOT = Path(__file__).parents[2]
WINDOW = 47_600


def some_sounds() -> Waveforms:
    rng = np.random.default_rng(0)
    lengths = {"dog": RATE // 2, "violin": 4 * RATE, "bell": RATE, NOISE: 2 * RATE}
    return {label: [rng.standard_normal(n).astype(np.float32) for _ in range(2)] for label, n in lengths.items()}


@pytest.mark.parametrize(
    "plan", [Plan(4, seed=1), Plan(4, seed=1, augment=False), Plan(4, seed=1, noise_alone=True)], ids=str
)
def test_a_mixture_is_drawn_from_its_seed_and_number_alone(plan: Plan) -> None:
    drawn = [mix(some_sounds(), plan, number, WINDOW) for number in range(plan.count)]
    for number in reversed(range(plan.count)):
        wave, labels = mix(some_sounds(), plan, number, WINDOW)
        assert np.array_equal(wave, drawn[number][0]) and labels == drawn[number][1]
        assert wave.shape == (WINDOW,) and wave.dtype == np.float32
        assert 0 < np.abs(wave).max() < 1 and np.isfinite(wave).all()
        assert len(labels) in ((0,) if plan.noise_alone else (1, 2)) and NOISE not in labels
    assert not np.array_equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][0], mix(some_sounds(), Plan(1, seed=2), 0, WINDOW)[0])


def test_a_sound_without_samples_that_count_is_no_error() -> None:
    quiet = {"dog": [np.zeros(RATE, np.float32)], "bell": [np.ones(1, np.float32)]}
    wave, _ = mix(quiet, Plan(1, seed=3), 0, WINDOW)
    assert np.isfinite(wave).all()


@needs(YAMNET, YAMNET_CLASSES)
def test_what_is_fitted_is_the_presence_that_the_model_finds() -> None:
    labels = ("dog", "speech", "violin")
    state, rows, biases = rename(read_onnx_numbers(YAMNET))
    model, sounds, plan = some_model(), some_sounds(), Plan(3, seed=5)
    index = {name: at for at, name in enumerate(audioset_names())}
    own = [index[name] for each in find_classes(labels) for name in each.audioset]
    with torch.no_grad():
        model.audio_encoder.backbone.load_state_dict(state)
        for layer, chosen in ((model.audio_tokens.rows, own), (model.audio_tokens.noises, [index[n] for n in NOISES])):
            layer.weight.copy_(rows[chosen])
            layer.bias.copy_(biases[chosen])
    examples = make_examples(sounds, [plan], labels, model.config.window_samples, lambda message: None)
    evidence = published_evidence(examples.features, rows, biases, labels)
    found = presence(evidence.heard, evidence.noise)
    for number in range(plan.count):
        wave, there = mix(sounds, plan, number, model.config.window_samples)
        assert [label in there for label in labels] == list(examples.heard[number])
        with torch.inference_mode():
            heard = model.encode_audio(torch.from_numpy(wave)[None]).logit
        assert heard is not None
        # features are kept in float16, and what noise is ahead counts several times
        torch.testing.assert_close(found[number], heard[0], atol=0.1, rtol=0.01)


def test_a_planted_correction_is_found() -> None:
    """Rows that lack a known step: the fit points along it, and tells the classes apart that they couldn't."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(500, 4, 24, generator=generator).half()
    features[:, 1:] = features[:, :1]
    planted = torch.randn(3, 24, generator=generator)
    published = torch.randn(3, 24, generator=generator)
    centred = features[:, 0].float() - 0.5
    heard = centred @ (published + 2 * planted).T > 1.0
    evidence = Evidence((features.float() - 0.5) @ published.T, torch.full((500, 4), -50.0))
    config = FitConfig(epochs=30, ridge=1e-4, share=1.0, learning_rate=0.05)
    rows, bias = fit_rows(features.numpy(), evidence, heard.numpy(), config)
    assert rows.shape == (3, 24) and bias.shape == (3,) and rows.dtype == np.float32
    for k in range(3):
        along = float(np.dot(rows[k], planted[k]) / np.linalg.norm(rows[k]) / planted[k].norm())
        assert along > 0.9, f"class {k}: cosine {along:.2f}"
    moved = evidence.heard + features.float() @ torch.from_numpy(rows).T + torch.from_numpy(bias)
    before, after = (order(presence(each, evidence.noise), heard) for each in (evidence.heard, moved))
    assert after > 0.97 > before
    half, half_bias = fit_rows(features.numpy(), evidence, heard.numpy(), replace(config, share=0.5))
    np.testing.assert_allclose(half, 0.5 * rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(half_bias, 0.5 * bias, rtol=1e-4, atol=1e-4)


def order(odds: torch.Tensor, heard: torch.Tensor) -> float:
    """How often a window with a class has more of it than one without."""
    each = []
    for k in range(odds.shape[1]):
        there, absent = odds[heard[:, k], k], odds[~heard[:, k], k]
        each.append(float((there[:, None] > absent).float().mean()))
    return min(each)


def test_the_shipped_fit_went_through_the_models_own_constants() -> None:
    provenance = read_refit().provenance
    assert provenance["mixtures"] == [vars(plan) for plan in PLANS], "the recipe changed: fit the rows again"
    facts = provenance["fit"]
    assert (facts["noise_weight"], facts["noise_lead"], facts["loudest"]) == (NOISE_WEIGHT, NOISE_LEAD, LOUDEST), (
        "the gate or the pooling changed: fit the rows again (make world-audio)"
    )


def test_phrases_are_playable_and_their_own() -> None:
    for label, parts in (INSTRUMENTS | EFFECTS).items():
        assert label == NOISE or label in world_classes()
        for part in parts:
            assert 0 <= part.low <= part.high < 128 and (part.bank == DRUMS or part.bank < 128)
            takes = [
                compose(seed_of("fluid", label, part, take), part.low, part.high, part.style) for take in (0, 0, 1)
            ]
            assert takes[0] == takes[1] and (takes[0] != takes[2] or part.style == "long")
            for note in takes[0]:
                assert part.low <= note.pitch <= part.high and 0 < note.velocity < 128
                assert 0 <= note.start < SECONDS and note.length > 0


@pytest.mark.parametrize(
    ("given", "message"), [(("--precision", "int9"), "precision 'int9' is not known"), ((), "exists already")]
)
def test_a_bundle_that_cannot_be_made_leaves_nothing(
    given: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    assert make_world(["--output", str(tmp_path), *given]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_sources_are_free_and_named() -> None:
    for package in PACKAGES:
        assert len(package.sha256) == 64 and package.author
        assert "GPL" not in package.licence and "SA" not in package.licence
        assert package.licence.startswith(("MIT", "CC0-1.0", "BSD-2-Clause"))
    for each in RECORDINGS:
        assert each.author and each.package in PACKAGES
        assert each.label == NOISE or each.label in world_classes()
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    card = (ROOT / "docs" / "model-card-world.md").read_text(encoding="utf-8")
    for row in read_refit().provenance["recordings"]:
        assert row["package"] in notice and row["package"] in card
        assert all(name.strip() in " ".join(notice.split()) for name in row["author"].replace(";", ",").split(",")), row


def test_a_class_of_sound_effects_alone_is_not_fitted() -> None:
    facts = {"package": "p", "version": "1", "licence": "MIT", "author": "A"}
    rows = [{"file": f"phrases/car/effects_{n}.wav", "label": "car"} | facts for n in range(12)]
    rows += [{"file": f"phrases/bell/fluid_{n}.wav", "label": "bell"} | facts for n in range(10)]
    assert not enough("car", rows) and enough("bell", rows) and not enough("bell", rows[:-1])
    assert [row["files"] for row in summarize(rows)] == [22]


PACKED = "usr/share/some.wav"


def some_package(folder: Path, content: bytes) -> Package:
    """A Debian package with one file."""
    tree = folder / "tree"
    (tree / PACKED).parent.mkdir(parents=True)
    (tree / PACKED).write_bytes(content)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: some-sounds\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: some\n"
    )
    (folder / "packages").mkdir()
    file = folder / "packages" / "some-sounds_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(file)], check=True, capture_output=True)
    digest = file_sha256(file)
    return Package(name="some-sounds", version="1", sha256=digest, licence="MIT", author="A")


@pytest.mark.skipif(not Path("/usr/bin/dpkg-deb").is_file(), reason="no dpkg-deb on this system")
def test_packages_are_checked_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = some_package(tmp_path, b"sound")
    recording = sources.Recording(label="dog", package=package, path=PACKED, author="A")
    monkeypatch.setattr(fetch, "PACKAGES", (package,))
    monkeypatch.setattr(fetch, "RECORDINGS", [recording])
    said: list[str] = []
    fetch.fetch(tmp_path, said.append)
    assert fetch.unpacked(tmp_path, package, PACKED).read_bytes() == b"sound"
    fetch.fetch(tmp_path, said.append)
    assert said == ["unpacking some-sounds"], "what is there is neither downloaded nor unpacked again"
    other = sources.Recording(label="dog", package=package, path="usr/share/other.wav", author="A")
    monkeypatch.setattr(fetch, "RECORDINGS", [other])
    with pytest.raises(FailureError, match=r"some-sounds_1_all\.deb lacks usr/share/other\.wav"):
        fetch.fetch(tmp_path, said.append)
    file = tmp_path / "packages" / package.file
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"is not some-sounds 1 \(sha256 .*remove it and run again"):
        fetch.fetch(tmp_path, said.append)


def test_a_package_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"can't download fluid-soundfont-gm .*no apt-get.*put fluid-soundfont-gm_3"):
        fetch.fetch(tmp_path, lambda message: None)


def test_without_its_packages_the_command_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.argv", ["recipes.world", "--output", str(tmp_path / "out")])
    assert main() == 2
    said = capsys.readouterr().err.strip()
    assert "pip install --no-deps" in said and "\n" not in said
    assert not (tmp_path / "out").exists()
