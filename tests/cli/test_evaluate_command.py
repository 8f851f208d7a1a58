"""avgn evaluate: what it writes, and every bad input with its exit status and its one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avgn.cli import main
from avgn.runtime.manifest import Item, Source, read_manifest, write_manifest
from avgn.scenes import SceneConfig, synthesize
from tests.commands import forked

Refused = Callable[..., str]
ONE = SceneConfig(split="test", sources=(1, 1), silent=(0, 0), off_screen=0.0)
TWO = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
ROOT = Path(__file__).parents[2]
KEYS = {"protocol", "classes", "metrics", "floor", "ceiling", "items", "skipped"}


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("solos") / "set", scenes=4, config=ONE, seed=2, jobs=1)


@pytest.fixture(scope="module")
def duets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("duets") / "set", scenes=3, config=TWO, seed=3, jobs=1)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs `avgn evaluate` that must fail with status 2; its one line on stderr."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["evaluate", *map(str, arguments)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("avgn: "), lines
        return lines[0].removeprefix("avgn: ")

    return run


def test_the_default_is_three_protocols_with_classes_given_and_predicted(duets: Path, tmp_path: Path) -> None:
    done = forked("evaluate", "tiny", duets, "--json", tmp_path / "r.json", "--bootstrap", 20)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_text())
    assert [(r["protocol"], r["classes"]) for r in results] == [
        (name, mode) for name in ("source-wise", "frame-wise", "adaptive") for mode in ("given", "predicted")
    ]
    for result in results:
        assert result.keys() >= KEYS and result["items"] == 3
        assert {"CAP", "PIAP", "AP", "CIoU@0.3", "IIoU@0.3", "AUC", "F1@0.3"} <= result["metrics"].keys()
    assert done.stdout.count("protocol ") == 6 and "ceiling" in done.stdout


def test_all_says_what_is_left_out_and_warns(
    solos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["evaluate", "tiny", str(solos), "--protocol", "all", "--json", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert "protocol video is left out: no item has a video_file" in shown
    assert "protocol slavc, classes given" in shown and "max-F1@0.5" in shown and "alpha is 1" in shown
    assert "known errors of the public release" in caplog.text
    results = json.loads((tmp_path / "r.json").read_text())
    assert all(result.keys() >= KEYS for result in results)


def test_bounds_without_a_model_need_no_files(duets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        replace(item, frame=tmp_path / "no.png", audio=tmp_path / "no.wav", sources=tuple(map(_boxed, item.sources)))
        for item in read_manifest(duets).items
    ]
    write_manifest(tmp_path / "m.jsonl", read_manifest(duets).classes, items)
    assert main(["evaluate", "none", str(tmp_path / "m.jsonl"), "--json", str(tmp_path / "r.json")]) == 0
    free = json.loads((tmp_path / "r.json").read_text())
    assert [r["protocol"] for r in free] == ["source-wise", "frame-wise", "adaptive"]
    assert all(r["metrics"] == {} and r["items"] == 3 for r in free)
    assert free[2]["ceiling"]["CAP"] == free[2]["ceiling"]["IoU@0.5"] == 100
    assert (
        main(["evaluate", "none", str(tmp_path / "m.jsonl"), "--grid", "7,7", "--json", str(tmp_path / "c.json")]) == 0
    )
    coarse = json.loads((tmp_path / "c.json").read_text())
    assert coarse[2]["floor"] == free[2]["floor"] and coarse[2]["ceiling"]["CAP"] < 100
    assert "floor" in capsys.readouterr().out


def _boxed(source: Source) -> Source:
    return replace(source, mask=None)


def test_unknown_names(duets: Path, refused: Refused) -> None:
    assert refused("tiny", duets, "--protocol", "best") == (
        "protocol 'best' is not known: choose from adaptive, all, dsol, ezvsl, frame-wise, lvs, release, slavc, "
        "source-wise, video"
    )
    assert refused("tiny", duets, "--protocol", " , ").startswith("no protocol was named: choose from")
    assert refused("tiny", duets, "--classes", "guessed") == (
        "classes 'guessed' is not known: choose from given, predicted"
    )
    assert refused("tiny", duets, "--pair-input", "both") == (
        "pair input 'both' is not known: choose from canvas, crops"
    )
    assert "does not exist" in refused("nowhere", duets)
    assert "does not exist" in refused("tiny", duets.parent / "none.jsonl")


def test_protocols_that_do_not_suit(duets: Path, solos: Path, tmp_path: Path, refused: Refused) -> None:
    for name in ("lvs", "ezvsl", "slavc"):
        assert refused("tiny", duets, "--protocol", name) == (
            f"protocol {name} does not suit {duets}: it is for one source an image and 3 of 3 items have several"
        )
    manifest = read_manifest(duets)
    other = tmp_path / "other.jsonl"
    write_manifest(other, manifest.classes, [replace(item, dataset="mine") for item in manifest.items])
    assert refused("tiny", other, "--protocol", "dsol") == (
        f"protocol dsol does not suit {other}: its threshold goes with solo, synthetic or duet data and the data sets "
        "here are 'mine', force it with --dsol-threshold"
    )
    assert main(["evaluate", "none", str(other), "--protocol", "dsol", "--dsol-threshold", "0.2"]) == 0
    assert refused("tiny", duets, "--protocol", "video") == (
        f"protocol video does not suit {duets}: no item has a video_file"
    )
    assert refused("tiny", solos, "--protocol", "lvs", "--classes", "predicted") == (
        f"protocol lvs does not suit {solos}: it scores classes given only, add --classes given"
    )


def test_numbers_out_of_range(duets: Path, refused: Refused) -> None:
    assert refused("tiny", duets, "--workers", 0) == "--workers must be at least 1, got 0: leave it out for the default"
    assert refused("tiny", duets, "--bootstrap", -1).startswith("--bootstrap must be at least 0, got -1")
    assert refused("tiny", duets, "--dsol-threshold", 2) == (
        "the share of DSOL's threshold must lie between 0 and 1, got 2.0: .1, .5 or .2"
    )
    assert refused("none", duets, "--grid", "7") == "--grid must be 2 whole numbers, got '7': for example 224,224"
    assert refused("none", duets, "--grid", "7,0").startswith("the grid must be (h, w) from 1 to 224, got (7, 0)")


def test_options_that_do_not_go_together(duets: Path, refused: Refused) -> None:
    assert refused("tiny", duets, "--grid", "7,7") == (
        "--grid goes with the model none, got tiny: a model has a grid of its own"
    )
    assert refused("none", duets, "--thresholds", duets) == (
        "--thresholds calibrates a model, got the model none: leave it out"
    )
    assert "must hold given" in refused("none", duets, "--classes", "predicted")
    assert refused("none", duets, "--backend", "openvino") == (
        "--backend openvino is for a bundle, but none runs nothing: leave it out"
    )
    assert refused("none", duets, "--device", "cuda") == (
        "--device cuda is for a checkpoint, but none runs nothing: leave it out"
    )
    checkpoint = ROOT / "recipes" / "checkpoint"
    assert "is a checkpoint, which PyTorch runs: leave it out" in refused(checkpoint, duets, "--backend", "openvino")
    assert "calibrate thresholds on other items" in refused("tiny", duets, "--thresholds", duets)


def test_other_classes_and_empty_manifests(tmp_path: Path, refused: Refused) -> None:
    write_manifest(tmp_path / "other.jsonl", ["viola"], [])
    message = refused("tiny", tmp_path / "other.jsonl")
    assert "the classes of" in message and "only the manifest has viola" in message
    assert refused("none", tmp_path / "other.jsonl") == (
        f"{tmp_path / 'other.jsonl'} lists no items: there is nothing to evaluate"
    )
    item = Item(id="a", sources=(), split="test", dataset="d", video="v")
    write_manifest(tmp_path / "empty.jsonl", ["viola"], [item])
    assert main(["evaluate", "none", str(tmp_path / "empty.jsonl")]) == 0


def test_masks_that_are_not_there(duets: Path, tmp_path: Path, refused: Refused) -> None:
    manifest = read_manifest(duets)
    broken = [replace(s, mask=tmp_path / "gone.png") for s in manifest.items[0].sources]
    items = [replace(manifest.items[0], sources=tuple(broken)), *manifest.items[1:]]
    write_manifest(tmp_path / "m.jsonl", manifest.classes, items)
    message = refused("none", tmp_path / "m.jsonl")
    assert message.startswith(f"item {items[0].id!r}: mask {tmp_path / 'gone.png'} can't be read")
    assert main(["evaluate", "none", str(tmp_path / "m.jsonl"), "--skip-bad"]) == 0


def test_a_device_that_is_not_there(duets: Path, refused: Refused) -> None:
    checkpoint = Path(__file__).resolve().parents[2] / "recipes" / "checkpoint"
    assert refused(checkpoint, duets, "--device", "dance") == (
        "device 'dance' is not known: use cpu, cuda, or cuda:1 for the second GPU"
    )
    assert refused(checkpoint, duets, "--device", "meta") == "device 'meta' is not supported: use cpu or cuda"
    assert refused(checkpoint, duets, "--device", "cuda:99").startswith("device 'cuda:99' is not there, PyTorch sees ")
    assert refused("tiny", duets, "--device", "cuda") == (
        "--device cuda is for a checkpoint, but tiny is a bundle: choose its engine with --backend"
    )
