"""Every importer on small sets in the public formats: boxes, labels, parts, annotators, negatives, reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avgn.importers import ImportOptions, import_dataset
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest, read_manifest
from tests.importers import sets
from tests.importers.layouts import by_id, options, said, write_annotation, write_files, write_list
from tests.importers.sets import DRUM, DUET, ELK, FEMALE, SOLO, VGG


def imported(kind: str, given: ImportOptions, **values: Any) -> tuple[Manifest, dict[str, Item], dict[str, Any]]:
    """The manifest as it is read back, its items by id and the report."""
    found = import_dataset(kind, given, **values)
    manifest = read_manifest(given.output)
    assert manifest.classes == found.classes
    return manifest, by_id(manifest.items), found.report.to_json(manifest.items)


def test_music_solo(tmp_path: Path) -> None:
    root = sets.music_solo(tmp_path)
    manifest, items, report = imported("music-solo", options(root), strict=True)
    assert manifest.classes == ("cello", "erhu", "flute")
    assert list(items) == list(SOLO)
    first = items[SOLO[0]]
    assert first.sources[0].boxes == ((0.25, 0.125, 0.75, 0.875),)
    assert items[SOLO[1]].sources[0].boxes == ((0.5, 0.25, 0.75, 0.5),)
    assert said(first.sources[0]) == ("cello", True, True)
    assert (first.video, first.split, first.dataset) == ("-_-TDDxoaAc", "test", "music-solo")
    assert first.frame == root / "frames" / f"{SOLO[0]}.jpg" and first.audio == root / "audio" / "-_-TDDxoaAc.wav"
    assert report["counts"]["items"] == 3 and report["counts"]["sources with boxes or masks"] == 3
    assert report["videos"] == {"1Ju4S0qeDqw": 2, "-_-TDDxoaAc": 1}
    assert not report["problems"]


def test_music_solo_for_training_has_labels_only(tmp_path: Path) -> None:
    manifest, items, _ = imported("music-solo", options(sets.music_solo(tmp_path), split="train"), strict=True)
    assert [said(item.sources[0]) for item in items.values()] == [
        ("flute", True, True),
        ("cello", True, True),
        ("erhu", True, True),
    ]
    assert all(not item.sources[0].boxes and item.split == "train" for item in manifest.items)


def test_music_duet(tmp_path: Path) -> None:
    manifest, items, report = imported("music-duet", options(sets.music_duet(tmp_path)), strict=True)
    assert manifest.classes == ("acoustic_guitar", "cello")
    sources = items[DUET[0]].sources
    assert [source.boxes for source in sources] == [((0.125, 0.25, 0.375, 0.75),), ((0.5, 0.5, 0.875, 0.625),)]
    assert [source.label for source in sources] == ["cello", "acoustic_guitar"]
    assert report["videos"] == {"HnUOaSfTA6c": 2}
    assert any("HnUOaSfTA6c 100.0 %" in line for line in import_lines(tmp_path))
    _, items, _ = imported("music-duet", options(tmp_path, split="train"))
    assert [said(source) for source in items["K_U5-GbPgi0_098_02961"].sources] == [
        ("cello", True, True),
        ("acoustic_guitar", True, True),
    ]


def import_lines(root: Path) -> list[str]:
    found = import_dataset("music-duet", options(root))
    return found.report.lines(found.items)


def test_vggsound_takes_labels_of_the_lists_and_boxes_where_there_are_any(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    manifest, items, report = imported("vggsound", options(root))
    assert manifest.classes == (ELK, FEMALE, DRUM)
    assert items[VGG[0]].sources[0].boxes == ((0.25, 0.25, 0.5, 0.75), (0.0, 0.5, 0.25, 1.0))
    assert items[VGG[1]].sources[0].label == FEMALE and items[VGG[1]].video == "gEvCUcZ6w88"
    assert items[VGG[2]].sources[0].boxes == ()
    assert report["counts"]["boxes clipped to the picture"] == 1
    assert report["problems"] == {"with a degenerate box": [VGG[2]], "with no usable box": [VGG[2]]}
    _, items, _ = imported("vggsound", options(root, split="train"), strict=True)
    assert list(items) == ["trainaaaaaa_000010", "trainbbbbbb_000010", "traincccccc_000010"]


def test_vggsound_as_its_authors_publish_it(tmp_path: Path) -> None:
    ids = ["---g-f_I2yQ_000001", "_aaaaaaaaaa_000030", "bbbbbbbbbbb_000120"]
    rows = ['---g-f_I2yQ,1,"female speech, woman speaking",test', "_aaaaaaaaaa,30,elk bugling,train"]
    rows += ['bbbbbbbbbbb,120,"female speech, woman speaking",train']
    write_list(write_files(tmp_path, ids, ids), "vggsound.csv", rows)
    manifest, items, _ = imported("vggsound", options(tmp_path), strict=True)
    assert manifest.classes == (ELK, FEMALE) and [item.id for item in manifest.items] == ids[:1]
    assert items[ids[0]].video == "---g-f_I2yQ"
    _, items, _ = imported("vggsound", options(tmp_path, split="train"), strict=True)
    assert list(items) == ids[1:]
    write_list(tmp_path, "vggsound.csv", ["a,b,c,test"])
    with pytest.raises(InputError, match="a,b,c,test is not YouTube id, start second"):
        import_dataset("vggsound", options(tmp_path))


def test_vggsound_duet_pairs_a_row_with_its_own_mix(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    _, items, report = imported("vggsound-duet", options(root))
    assert list(items) == [f"{VGG[0]}+{VGG[1]}", f"{VGG[1]}+{VGG[2]}", f"{VGG[2]}+{VGG[0]}"]
    first, last = items[f"{VGG[0]}+{VGG[1]}"], items[f"{VGG[2]}+{VGG[0]}"]
    assert [(source.label, source.part) for source in first.sources] == [(ELK, 0), (FEMALE, 1)]
    assert first.sources[1].boxes == ((0.5, 0.125, 0.625, 0.5),)
    assert first.frames == tuple(root / "frames" / f"{id}.jpg" for id in VGG[:2]) and first.frame is None
    assert first.sounds == tuple(root / "audio" / f"{id}.wav" for id in VGG[:2]) and first.audio is None
    # the pair of the last row is not the first row's
    assert last.sources[1].boxes == items[f"{VGG[0]}+{VGG[1]}"].sources[0].boxes
    assert "pairs with two sources of the same class" not in {k for k, n in report["counts"].items() if n}
    rows = [f"{VGG[0]},{ELK},{VGG[1]},{ELK}", f"{VGG[0]},{ELK},trainaaaaaa_000010,{ELK}"]
    write_list(root, "vggsound_duet_test.csv", rows)
    _, items, report = imported("vggsound-duet", options(root))
    assert report["counts"]["pairs with two sources of the same class"] == 2
    assert report["problems"]["with another class than in vggss.json"] == [VGG[1]]
    assert report["problems"]["listed without an annotation"] == ["trainaaaaaa_000010"]
    assert report["problems"]["in the training list as well"] == ["trainaaaaaa_000010"]


def test_vggss_with_its_negatives(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    _, items, report = imported("vggss", options(root, extended=True), strict=True)
    assert report["counts"]["silent negatives"] == 2 and len(items) == 5
    other = items[f"{VGG[0]}+{VGG[2]}"]
    assert [said(source) for source in other.sources] == [(ELK, False, True), (DRUM, True, False)]
    assert other.frame == root / "frames" / f"{VGG[0]}.jpg" and other.audio == root / "audio" / f"{VGG[2]}.wav"
    assert (other.dataset, other.video) == ("vggss-test-plus-silent", "zpWuikVorYg")
    silent = items["9PmzQI8ZYpg_000147+9PmzQI8ZYpg_000147"]
    assert not silent.sources
    with pytest.raises(InputError, match="vggss has test annotations only"):
        import_dataset("vggss", options(root, split="train"))


def test_instruments_masks_become_pictures(tmp_path: Path) -> None:
    root = sets.instruments(tmp_path)
    manifest, items, report = imported("vggsound-instruments", options(root), strict=True)
    assert manifest.classes == ("accordion", "steel_guitar") and list(items) == ["sample0000", "sample0001"]
    expected = np.zeros((24, 32), np.uint8)
    expected[6:12, 8:24] = 255
    for item in items.values():
        assert item.sources[0].mask is not None
        np.testing.assert_array_equal(cv2.imread(str(item.sources[0].mask), cv2.IMREAD_UNCHANGED), expected)
    _, items, _ = imported("vggsound-instruments", options(root, extended=True), strict=True)
    pair = items["sample0000+sample0001"]
    assert [(s.label, s.part, s.mask is not None) for s in pair.sources] == [
        ("accordion", 0, True),
        ("steel_guitar", 1, True),
    ]
    assert len(pair.parts) == 2
    _, items, _ = imported("vggsound-instruments", options(root, split="train"), strict=True)
    assert [item.sources[0].mask for item in items.values()] == [None, None]
    (root / "masks" / "sample0001.pkl").unlink()
    _, items, report = imported("vggsound-instruments", options(root))
    assert report["problems"] == {"without a mask on disk": ["sample0001"]}


def test_flickr_keeps_its_annotators_apart(tmp_path: Path) -> None:
    root = sets.flickr(tmp_path)
    manifest, items, report = imported("flickr", options(root, extended=True), strict=True)
    assert manifest.classes == ("sound",)
    source = items["10000130166"].sources[0]
    assert source.annotators == (((0.25, 0.0, 0.5, 1.0),), ((0.375, 0.125, 0.625, 1.0),))
    assert source.boxes == ((0.25, 0.0, 0.5, 1.0), (0.375, 0.125, 0.625, 1.0))
    assert items["10007936344"].sources[0].annotators == (((0, 0, 0.25, 0.25), (0.5, 0.5, 0.75, 0.75)),)
    negative = items["10000130166+10007936344"]
    assert [said(source) for source in negative.sources] == [("sound", False, True), ("sound", True, False)]
    assert [said(source) for source in items["10007936344+555"].sources] == [("sound", False, True)]
    assert report["counts"]["silent negatives"] == 2


def test_dsol(tmp_path: Path) -> None:
    root = sets.dsol(tmp_path)
    _, items, report = imported("dsol-solo", options(root), strict=True)
    assert report["counts"]["frames without a box"] == 1
    item = items["4Oy5VmaacaI_0_1000_frame_013_00411"]
    assert item.sources[0].label == "cello" and item.sources[0].boxes == ((0.25, 0, 0.75, 0.75),)
    assert item.video == "4Oy5VmaacaI_0_1000" and item.audio is not None and item.audio.name == "00411.wav"
    empty = items["4Oy5VmaacaI_0_1000_frame_014_00441"]
    assert not empty.sources and empty.audio is not None and empty.audio.name == "frame_014.wav"
    manifest, items, _ = imported("dsol-duet", options(root), strict=True)
    sources = items["HnUOaSfTA6c_0_1000_frame_175_05257"].sources
    assert {source.label: source.boxes for source in sources} == {
        "cello": ((0, 0.25, 0.25, 0.75), (0.75, 0, 0.875, 0.125)),
        "acoustic_guitar": ((0.5, 0.5, 0.75, 0.625),),
    }
    assert len(manifest.classes) == 7


def test_one_bad_box_of_several_leaves_the_source_scorable(tmp_path: Path) -> None:
    root = sets.dsol(tmp_path)
    key = "HnUOaSfTA6c_0_1000/frame_175/05257.jpg"
    good = [{"normbox": [0.1, 0.1, 0.2, 0.2], "category_id": 1}] * 12
    write_annotation(root, "dsol/duettest.json", {key: {"bbox": [*good, good[0] | {"normbox": [0.1, 0.1, 0, 0.2]}]}})
    _, items, report = imported("dsol-duet", options(root), strict=True)
    assert list(report["problems"]) == ["with a degenerate box"]
    assert len(next(iter(items.values())).sources[0].boxes) == 12


@pytest.mark.parametrize("kind", ["music-solo", "vggss", "flickr", "dsol-duet", "vggsound-instruments"])
def test_trailing_slashes_change_nothing(tmp_path: Path, kind: str) -> None:
    make = {"music-solo": sets.music_solo, "vggss": sets.vggsound, "flickr": sets.flickr, "dsol-duet": sets.dsol}
    root = make.get(kind, sets.instruments)(tmp_path)
    plain, _, _ = imported(kind, options(root))
    before = plain.path.read_bytes()
    slashed = options(Path(f"{root}{os.sep}"), metadata=Path(f"{root}{os.sep}metadata{os.sep}"))
    imported(kind, slashed)
    assert plain.path.read_bytes() == before


def test_other_suffixes_and_lists_elsewhere(tmp_path: Path) -> None:
    root = sets.music_solo(tmp_path / "set")
    (root / "metadata").rename(tmp_path / "lists")
    frame = root / "frames" / f"{SOLO[0]}.jpg"
    frame.rename(frame.with_suffix(".JPEG"))
    output = tmp_path / "elsewhere" / "m.jsonl"
    output.parent.mkdir()
    manifest, items, _ = imported("music-solo", options(root, metadata=tmp_path / "lists", output=output), strict=True)
    found = items[SOLO[0]].frame
    assert found is not None and found.resolve() == frame.with_suffix(".JPEG").resolve()
    assert '"../set/frames/' in manifest.path.read_text()


def test_a_given_class_list_rules(tmp_path: Path) -> None:
    root = sets.music_solo(tmp_path)
    manifest, _, _ = imported("music-solo", options(root, classes=("flute", "cello", "zither")))
    assert manifest.classes == ("flute", "cello", "zither")
    (root / "metadata" / "music_solo_train.txt").unlink()
    manifest, _, report = imported("music-solo", options(root))
    assert manifest.classes == ("cello", "flute")
    assert report["notes"] == ["no training list was found: the classes are those of the list itself"]
