"""Every recipe runs from files to rows on made-up data in the public layouts; published figures are the paper's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from avgn.importers import ImportOptions, import_dataset
from avgn.reproduce import format_outcome, read_recipe, recipe_names
from avgn.reproduce.compose import compose
from avgn.reproduce.data import count_shared, split_by_video
from avgn.reproduce.layouts import Sizes, write_layouts
from avgn.reproduce.published import published_rows
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, Source, read_manifest
from tests.commands import forked, refused

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    sizes = Sizes(train=16, test=8, size=(96, 96), seconds=0.5)
    write_layouts(root, {"MUSIC", "VGGSound", "VGGSound-Instruments"}, sizes)
    return root


@pytest.mark.parametrize(
    ("kind", "root", "extended", "sources"),
    [
        ("music-solo", "MUSIC", False, 1),
        ("music-duet", "MUSIC", False, 2),
        ("vggss", "VGGSound", False, 1),
        ("vggsound", "VGGSound", False, 1),
        ("vggsound-duet", "VGGSound", False, 2),
        ("vggsound-instruments", "VGGSound-Instruments", False, 1),
        ("vggsound-instruments", "VGGSound-Instruments", True, 2),
    ],
)
def test_made_up_layouts_are_imported_with_their_truth(
    kind: str, root: str, extended: bool, sources: int, layouts: Path, tmp_path: Path
) -> None:
    options = ImportOptions(
        root=layouts / root, metadata=layouts / root / "metadata", output=tmp_path / "m.jsonl", extended=extended
    )
    import_dataset(kind, options, strict=True)
    for item in read_manifest(tmp_path / "m.jsonl").items:
        assert len(item.sources) == sources
        assert all(source.boxes or source.mask for source in item.sources)


# rows of every kind of maps; tests/baselines train each system
SOME_ROWS = {
    "table1": "LVS,AVGN",
    "table2": "DMC,AVGN",
    "table3": "neither,tokens only,grouping only,both",
    "three-sources": "Mix-and-Localize,AVGN",
}


@pytest.mark.parametrize("recipe", list(SOME_ROWS))
def test_a_dry_run_of_every_recipe_gives_its_rows(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = ("reproduce", recipe, "--dry-run", "--output", out, "--rows", SOME_ROWS[recipe], "--bootstrap", 20)
    done = forked(*run, "--json", tmp_path / "o.json")
    assert done.returncode == 0 and "trained on" not in done.stderr, done.stderr
    outcome = json.loads((tmp_path / "o.json").read_text())
    expected = read_recipe(recipe)
    assert [found["name"] for found in outcome["sets"]] == [spec.name for spec in expected.sets]
    for found, spec in zip(outcome["sets"], expected.sets, strict=True):
        given = [row for row in found["rows"] if row["classes"] == "given" and row["protocol"] == "source-wise"]
        assert [row["row"] for row in given] == SOME_ROWS[recipe].split(",")
        for row in given:
            assert row["items"] > 0
            for metric in spec.metrics:
                assert 0 <= row["values"][metric] <= 100
                assert row["floor"][metric] <= row["ceiling"][metric] <= 100
        assert found["published"]
    assert "dry run" in done.stdout and "published: AVGN" in done.stdout or recipe == "table3"
    # what is done is not done again
    again = forked(*run)
    assert again.returncode == 0 and again.stdout == done.stdout and "training" not in again.stderr


def test_the_published_figures_are_the_papers() -> None:
    if not (SHARED / "published.json").is_file():
        pytest.skip("the paper's figures are not beside this checkout")
    import avgn.reproduce.published as module

    assert module._tables() == json.loads((SHARED / "published.json").read_text())


def test_published_rows_by_table() -> None:
    assert published_rows("table1", "MUSIC-Solo")["AVGN"] == {"AP": 77.2, "IoU@0.5": 58.1, "AUC": 48.5}
    assert published_rows("table2", "VGGSound-Duet")["AVGN"]["CAP"] == 21.9
    ladder = published_rows("table3", "MUSIC-Duet")
    assert list(ladder) == ["neither", "tokens only", "grouping only", "both"] and ladder["both"]["CAP"] == 50.6
    assert published_rows("three_sources", "VGGSound")["AVGN"]["PIAP"] == 23.7
    assert published_rows("table1", "Flickr") == {}


def test_a_table_says_whose_rows_they_are() -> None:
    row = {
        "row": "AVGN",
        "protocol": "source-wise",
        "classes": "given",
        "maps": "per class",
        "values": {"CAP": 12.34, "AUC": None},
        "ci95": {"CAP": [10.0, 15.0], "AUC": None},
        "floor": {"CAP": 1.0, "AUC": 2.0},
        "ceiling": {"CAP": 90.0, "AUC": 80.0},
    }
    published = {"LVS": {"CAP": None, "AUC": 20.0}}
    found = {"name": "Set", "items": 5, "metrics": ["CAP", "AUC"], "rows": [row], "published": published}
    text = format_outcome({"title": "T", "data": "synthetic", "sets": [found]})
    lines = text.splitlines()
    assert "not to be compared" in lines[1]
    assert any(line.startswith("ours: AVGN") and "12.3 [10.0 15.0]" in line for line in lines)
    assert any(line.startswith("published: LVS") and "CVPR 2023" in line and line.endswith("20.0") for line in lines)
    assert any(line.startswith("floor") for line in lines) and any(line.startswith("ceiling") for line in lines)


def items(count: int, videos: int) -> Manifest:
    made = tuple(
        Item(
            id=str(n),
            sources=(Source(label="abc"[n % 3], sounding=True, on_screen=True, boxes=((0.0, 0.0, 0.5, 0.5),)),),
            split="test",
            dataset="d",
            video=str(n % videos),
            frame=Path(f"{n}.jpg"),
            audio=Path(f"{n}.wav"),
        )
        for n in range(count)
    )
    return Manifest(path=Path("m.jsonl"), classes=("a", "b", "c"), items=made)


def test_composed_items_hold_different_classes_and_every_source_in_its_place() -> None:
    made = compose(items(30, 30), 3, 40, seed=1)
    assert len(made.items) == 40 == len({item.id for item in made.items})
    for item in made.items:
        assert [source.part for source in item.sources] == [0, 1, 2] and len(item.parts) == 3
        assert {source.label for source in item.sources} == {"a", "b", "c"}
    assert compose(items(30, 30), 3, 40, seed=1) == made and compose(items(30, 30), 3, 40, seed=2) != made
    with pytest.raises(InputError, match="too few items or classes to set 4 side by side"):
        compose(items(30, 30), 4, 5)


def test_held_out_items_are_of_videos_of_their_own() -> None:
    train, held = split_by_video(items(60, 12), 0.2, seed=0)
    assert len(train.items) + len(held.items) == 60
    videos = Counter(item.video for item in held.items)
    assert len(videos) == 2 and not set(videos) & {item.video for item in train.items}
    with pytest.raises(InputError, match="has 1 video"):
        split_by_video(items(5, 1), 0.2, seed=0)


def test_test_items_that_are_trained_on_are_counted() -> None:
    assert count_shared(items(60, 12), items(12, 6)) == 12
    assert count_shared(items(60, 6), items(12, 12)) == 6


def test_recipes_of_ones_own_and_what_is_refused(tmp_path: Path) -> None:
    assert recipe_names() == ["table1", "table2", "table3", "three-sources"]
    out = ("--output", tmp_path / "o")
    assert "recipe 'table9' is not known: use one of table1" in refused("reproduce", "table9", *out)
    assert "no folder MUSIC" in refused("reproduce", "table1", *out, "--data", tmp_path)
    assert "set 'X' is not in this recipe" in refused("reproduce", "table1", *out, "--sets", "X")
    assert "row 'X' is not in this recipe" in refused("reproduce", "table1", *out, "--rows", "X")
    assert "parallel must be at least 1, got 0" in refused("reproduce", "table1", *out, "--parallel", 0)
    assert "seeds must be at least 1, got 0" in refused("reproduce", "table1", *out, "--seeds", 0)
    assert "batch_size must be at least 1" in refused("reproduce", "table1", *out, "--batch-size", 0)
    for text, message in (
        ("[]", "must be a mapping"),
        ("title: t", "entry 'table' is missing"),
        ("titel: t", "entry 'titel' is not known"),
        ("a: [", "can't be read"),
    ):
        own = tmp_path / "own.yaml"
        own.write_text(text)
        assert message in refused("reproduce", own, *out)
    own.write_text(_recipe_text("table1").replace("epochs: 100", "epoks: 100"))
    assert "epoks" in refused("reproduce", own, "--dry-run", *out)
    assert not (tmp_path / "o").exists()


def _recipe_text(name: str) -> str:
    from avgn.reproduce.recipe import FOLDER

    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def test_rows_fit_the_presets() -> None:
    from avgn.config import preset
    from avgn.training import TrainConfig

    for name in recipe_names():
        recipe = read_recipe(name)
        for row in recipe.rows:
            preset(recipe.preset, **(recipe.model | row.model))
        for spec in recipe.sets:
            settings: dict[str, Any] = recipe.training | spec.training
            assert TrainConfig.from_options(**settings).batch_size == 128
