"""Bad data sets through the command: one sentence that names what is wrong, exit status 2, no manifest."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avgn.importers.boxes import makes_sense, to_corners
from avgn.importers.flickr import read_annotators
from avgn.importers.instruments import read_mask_array
from avgn.importers.report import Report
from avgn.importers.wav import read_header
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import read_manifest
from tests.commands import forked, refused
from tests.importers import sets
from tests.importers.layouts import write_annotation, write_list, write_wav
from tests.importers.sets import DUET, SOLO, VGG


def run(kind: str, root: Path, *arguments: object) -> tuple[list[str], dict[str, Any]]:
    """Import through the command; its lines and its report."""
    done = forked("import", kind, root, "--output", root / "out.jsonl", "--json", root / "report.json", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines(), json.loads((root / "report.json").read_text())


def refuse(kind: str, root: Path, *arguments: object) -> str:
    message = refused("import", kind, root, "--output", root / "out.jsonl", *arguments)
    assert not (root / "out.jsonl").exists()
    return message.removeprefix("avgn: ")


def test_the_command_reports_and_writes(tmp_path: Path) -> None:
    lines, report = run("music-duet", sets.music_duet(tmp_path), "--strict", "--check", "--jobs", 2)
    assert lines[-1] == str(tmp_path / "out.jsonl")
    assert "items: 2" in lines and "largest videos: HnUOaSfTA6c 100.0 %" in lines
    assert report["counts"]["files decoded"] == 3 and report["videos"] == {"HnUOaSfTA6c": 2}
    assert len(read_manifest(tmp_path / "out.jsonl").items) == 2


def test_wrong_box_orders_name_the_suspicion(tmp_path: Path) -> None:
    root = sets.music_duet(tmp_path / "duet")
    assert refuse("music-duet", root, "--boxes", "xyxy") == (
        "2 of 4 boxes of music_duet.json make no sense as xyxy and 0 as xywh: they look like xywh, "
        "so pass --boxes xywh or give the original file"
    )
    corners = {"bbox_src1": [0.5, 0.5, 0.75, 0.75], "bbox_src2": [0.5, 0.5, 0.875, 0.625]}
    entries = [entry | corners for entry in json.loads((root / "metadata" / "music_duet.json").read_text())]
    write_annotation(root, "music_duet.json", entries)
    assert "make no sense as xywh and 0 as xyxy: they look like xyxy, so pass --boxes xyxy" in refuse(
        "music-duet", root
    )
    run("music-duet", root, "--boxes", "xyxy")
    assert read_manifest(root / "out.jsonl").items[0].sources[1].boxes == ((0.5, 0.5, 0.875, 0.625),)
    assert "--boxes must be xywh or xyxy, got 'yx'" in refused(
        "import", "music-duet", root, "-o", root / "o.jsonl", "--boxes", "yx"
    )


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (
            [10, 20, 100, 80],
            "1 of 1 boxes of music_solo.json are far above 1: they look like pixels, so divide them by",
        ),
        ([0.1, 0.2, 0.3], "music_solo.json: a box must be four numbers, got [0.1, 0.2, 0.3]: give"),
        ([0.1, "0.2", 0.3, 0.4], "music_solo.json: a box must be four numbers, got [0.1, '0.2', 0.3, 0.4]"),
        ([0.1, float("nan"), 0.3, 0.4], "music_solo.json: a box must be four numbers, got [0.1, nan, 0.3, 0.4]"),
        ([0.1, 10**400, 0.3, 0.4], "music_solo.json can't be read (it holds a number of 401 digits)"),
        (None, "music_solo.json: a box must be four numbers, got None"),
    ],
    ids=["pixels", "three", "text", "nan", "huge", "none"],
)
def test_boxes_that_are_none(tmp_path: Path, box: object, expected: str) -> None:
    root = sets.music_solo(tmp_path)
    write_annotation(root, "music_solo.json", [{"file": SOLO[0], "class": "cello", "bbox": box}])
    assert expected in refuse("music-solo", root)


def test_mixed_class_lists(tmp_path: Path) -> None:
    root = sets.music_solo(tmp_path)
    write_list(root, "music_solo_train.txt", ["E7E1kMExVcg_053_01611,elk_bugling"])
    assert refuse("music-solo", root) == (
        "2 labels are not among the 1 classes of the training list (cello, flute): "
        "the lists belong to different data sets, or --classes names others"
    )
    (root / "classes.txt").write_text("cello\nviolin\n")
    message = refuse("music-solo", root, "--classes", root / "classes.txt")
    assert message.startswith("1 labels are not among the 2 classes of --classes (flute)")
    (root / "classes.txt").write_text("cello\ncello\nflute\n")
    assert "lists 'cello' twice" in refuse("music-solo", root, "--classes", root / "classes.txt")
    assert "class list" in refuse("music-solo", root, "--classes", root / "none.txt")


def test_missing_empty_and_doubled_files_are_told_and_left_out(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    write_list(root, "vggsound_single_test.csv", [f"{id},elk_bugling" for id in (*VGG, VGG[0], "trainaaaaaa_000010")])
    (root / "audio" / f"{VGG[1]}.wav").unlink()
    (root / "audio" / f"{VGG[2]}.wav").write_bytes(b"")
    strict = refuse("vggsound", root, "--strict")
    assert strict == (
        "--strict: 1 in the training list as well (trainaaaaaa_000010); "
        f"1 without audio on disk ({VGG[1]}); 1 zero-byte files ({VGG[2]}.wav); 1 listed more than once ({VGG[0]}): "
        "mend the files or import without --strict"
    )
    lines, report = run("vggsound", root)
    assert [item.id for item in read_manifest(root / "out.jsonl").items] == [VGG[0], "trainaaaaaa_000010"]
    assert report["problems"]["without audio on disk"] == [VGG[1]]
    assert f"without audio on disk: 1 ({VGG[1]})" in lines


def test_videos_in_both_lists_are_told(tmp_path: Path) -> None:
    root = sets.music_duet(tmp_path)
    write_list(root, "music_duet_train.txt", [f"{DUET[0]},cello,acoustic_guitar", "HnUOaSfTA6c_999_00000,cello"])
    lines, report = run("music-duet", root)
    assert report["problems"]["in the training list as well"] == [DUET[0]]
    assert "videos in the training list as well: 1 (HnUOaSfTA6c)" in lines
    assert "1 in the training list as well" in refused("import", "music-duet", root, "-o", root / "s.jsonl", "--strict")


def test_damaged_files_are_found_by_check(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    frame = root / "frames" / f"{VGG[0]}.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    frame.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:-2])
    (root / "frames" / f"{VGG[1]}.jpg").write_bytes(b"no picture")
    sound = root / "audio" / f"{VGG[2]}.wav"
    sound.write_bytes(sound.read_bytes()[:-100])
    _, report = run("vggsound", root)
    assert report["counts"]["items"] == 3
    (root / "out.jsonl").unlink()
    strict = refuse("vggsound", root, "--check", "--strict")
    assert f"2 with a frame that can't be decoded ({VGG[0]}, {VGG[1]})" in strict
    assert f"1 with a sound that can't be decoded ({VGG[2]})" in strict
    assert "gives no item" in refuse("vggsound", root, "--check")
    write_wav(sound)
    lines, report = run("vggsound", root, "--check")
    assert [item.id for item in read_manifest(root / "out.jsonl").items] == [VGG[2]]
    assert f"frame {frame} is cut off (it has no end mark): mend or remove the item" in lines
    assert report["counts"]["files decoded"] == 6


def test_wav_headers(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", seconds=0.5)
    data = path.read_bytes()
    header = read_header(path)
    assert (header.rate, header.channels, header.seconds, header.missing) == (8000, 1, 0.5, 0)
    path.write_bytes(data[:-80])
    assert (read_header(path).seconds, read_header(path).missing) == (0.495, 80)
    # an odd chunk before the data, and a size that a pipe's writer did not know
    path.write_bytes(data[:36] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data\xff\xff\xff\xff" + data[44:])
    assert (read_header(path).seconds, read_header(path).missing) == (0.5, 0)
    # a tag that some recorders write in front
    path.write_bytes(b"ID3\x03\0\0\0\0\1\0" + bytes(128) + data)
    assert (read_header(path).seconds, read_header(path).missing) == (0.5, 0)
    for broken in (b"", b"RIFF", data[:30], data[:28] + bytes(8) + data[36:], b"RIFX" + data[4:]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="a.wav"):
            read_header(path)


def test_lists_with_marks_quotes_and_commas(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    rows = [f'"{VGG[0]}","elk bugling"', f'{VGG[1]},"female speech, woman speaking"', f"{VGG[2]}, playing bass drum "]
    write_list(root, "vggsound_single_test.csv", ["\ufeff" + rows[0], *rows[1:], "", ""], end="\r\n")
    run("vggsound", root, "--strict")
    labels = [item.sources[0].label for item in read_manifest(root / "out.jsonl").items]
    assert labels == [sets.ELK, sets.FEMALE, sets.DRUM]
    (root / "out.jsonl").unlink()
    path = write_list(root, "vggsound_single_test.csv", [rows[0], f"{VGG[1]},female speech, woman speaking"])
    assert refuse("vggsound", root) == f"{path} line 2 has 3 columns, expected 2: quote names with commas"
    # half a character of UTF-16
    path.write_bytes(b"\xff\xfe\x00ba")
    assert f"list {path} can't be read as UTF-16-LE (line 1): save it as UTF-8" in refuse("vggsound", root)
    path.write_text("\n\n")
    assert f"list {path} is empty" in refuse("vggsound", root)


def test_missing_and_unreadable_metadata(tmp_path: Path) -> None:
    root = sets.music_solo(tmp_path)
    path = root / "metadata" / "music_solo.json"
    for text, expected in (
        ("{nonsense", f"annotation {path} can't be read (Expecting property name"),
        ("{}", f"annotation {path} must be a JSON list of entries"),
        ("[3]", f"annotation {path}: entry 0 is int, no object"),
        ('[{"file": "a", "class": "b"}]', f"annotation {path}: entry 0 has no 'bbox'"),
    ):
        path.write_text(text)
        assert expected in refuse("music-solo", root)
    path.unlink()
    assert refuse("music-solo", root) == (
        f"annotation {path} does not exist: give the folder of the lists with --metadata"
    )
    message = refuse("vggsound", root, "--metadata", root / "none")
    assert "none has no vggsound_single_test.csv and no vggsound_test.csv and no vggsound.csv" in message


def test_dsol_annotations_that_are_none(tmp_path: Path) -> None:
    root = sets.dsol(tmp_path)
    box = {"normbox": [0, 0, 1, 1], "category_id": 2}
    for value, expected in (
        ([], "must be a JSON object of frames"),
        ({"a/b.jpg": {"bbox": 3}}, "'a/b.jpg' has no list of boxes"),
        ({"a/b.jpg": {}}, "a/b.jpg has no 'bbox'"),
        ({"a/b.jpg": {"bbox": [{"category_id": 1}]}}, "a box of a/b.jpg has no 'normbox'"),
        ({"a/b.jpg": {"bbox": [box]}}, "category 2 of a/b.jpg is not known: 1 cello, 3 acoustic_guitar"),
        ({"a/b.jpg": {"bbox": [box | {"category_id": []}]}}, "category [] of a/b.jpg is not known"),
    ):
        write_annotation(root, "dsol/solotest.json", value)
        assert expected in refuse("dsol-solo", root)


def test_folders_and_arguments(tmp_path: Path) -> None:
    root = sets.music_solo(tmp_path)
    assert "data set 'musik' is not known: choose from music-solo" in refuse("musik", root)
    assert "--split must be train or test, got 'val'" in refuse("music-solo", root, "--split", "val")
    assert "--jobs must be at least 1, got 0" in refuse("music-solo", root, "--jobs", 0)
    assert "none is no folder" in refused("import", "music-solo", root / "none", "-o", root / "out.jsonl")
    for option, value in (("--fps", 2), ("--window", 1), ("--labels", "l.csv")):
        said = refused("import", "music-solo", root, "-o", root / "out.jsonl", option, value)
        assert f"{option} is for avgn import videos: leave it out for music-solo" in said
    assert "its folder does not exist" in refused("import", "music-solo", root, "-o", root / "no" / "out.jsonl")
    (root / "audio").rename(root / "sound")
    assert refuse("music-solo", root) == (
        f"folder {root / 'audio'} does not exist: the layout is frames/<id>.jpg and audio/<id>.wav"
    )
    (root / "audio").write_text("no folder")
    assert f"folder {root / 'audio'} is a file: the layout is" in refuse("music-solo", root)
    (root / "audio").unlink()
    (root / "audio").mkdir()
    assert f"{root} gives no item (3 without audio on disk)" in refuse("music-solo", root)
    assert "the layout is Annotations/<id>.xml" in refuse("flickr", flickr_without_boxes(tmp_path / "flickr"))


def flickr_without_boxes(root: Path) -> Path:
    sets.flickr(root)
    (root / "Annotations").rename(root / "elsewhere")
    return root


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    root = sets.instruments(tmp_path)
    target = tmp_path / "pwned"
    data = pickle.dumps([np.zeros((2, 2)), Attack(target)], protocol=protocol)
    mask = root / "masks" / "sample0000.pkl"
    mask.write_bytes(data)
    with pytest.raises(InputError, match=r"sample0000.pkl is a pickle that calls \w+.mkdir: it may hold arrays"):
        read_mask_array(mask)
    if protocol == 4:
        assert "is a pickle that calls posix.mkdir" in refuse("vggsound-instruments", root)
    assert not target.exists()
    # the attack is real: pickle itself would have run it
    pickle.loads(data)
    assert target.exists()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "calls builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "calls numpy.load"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "asks for the codec 'rot13'"),
        (b"Pid\n.", "references to the outside"),
        (b"\x80\x04", "can't be read"),
        (pickle.dumps("text"), "holds str, no array of numbers"),
        (pickle.dumps(np.array([None, "x"])), "no array of numbers"),
        (pickle.dumps(np.zeros((2, 2, 9))), r"has shape \[2, 2, 9\]"),
        (pickle.dumps(np.zeros((1, 9000))), r"give \[H, W\]"),
    ],
    ids=["eval", "load", "codec", "persistent", "cut", "text", "objects", "shape", "line"],
)
def test_pickles_that_are_no_masks(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=expected):
        read_mask_array(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_entity_bomb_is_refused(tmp_path: Path, encoding: str) -> None:
    root = sets.flickr(tmp_path)
    entities = '<!ENTITY a0 "lol">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE z [{entities}]><z><p>&a11;</p></z>'
    path = root / "Annotations" / "10000130166.xml"
    path.write_bytes(text.encode(encoding))
    assert refuse("flickr", root) == (
        f"annotation {path} can't be read (it declares a document type, which may hold entities): "
        "give the data set's own file"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a><b>", "can't be read"),
        ("<a><p><bbox><x>1</x></bbox></p></a>", "a bbox without four numbers"),
        ("<a><p><bbox><x>1</x><y>2</y><z>3</z><w>many</w></bbox></p></a>", "a bbox without four numbers"),
        ("<a>" + " " * 1_000_001 + "</a>", "has 1000008 bytes"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a document type"),
    ],
    ids=["cut", "one", "text", "large", "outside"],
)
def test_annotations_that_are_none(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        read_annotators(path, Report())


def test_what_rounding_puts_over_the_edge_is_a_box_and_what_lies_further_out_none() -> None:
    """Two hundredths are what lists are off by; ten in a hundred boxes beyond it are another order of the numbers."""
    assert makes_sense((0.5, 0.5, 0.515, 0.5), "xywh") and makes_sense((0.5, 0.5, 0.5, 0.515), "xywh")
    assert not makes_sense((0.5, 0.5, 0.53, 0.5), "xywh") and not makes_sense((0.5, 0.5, 0.5, 0.53), "xywh")
    assert to_corners([0.5, 0.25, 0.515, 0.5], "xywh", "list") == ((0.5, 0.25, 1.0, 0.75), True)
    # a millionth is how numbers are written
    assert to_corners([0.5, 0.25, 0.5000001, 0.5], "xywh", "list") == ((0.5, 0.25, 1.0, 0.75), False)
