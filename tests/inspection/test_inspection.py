"""Inspection: statistics against counts by hand, and pictures on which the truth is where it should be."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.signal

from avgn.importers import import_dataset
from avgn.inspection import draw_cards, lines_of, pick, summarize
from avgn.inspection.boxes import box_statistics
from avgn.inspection.page import render_page
from avgn.inspection.sheet import draw_sheet
from avgn.inspection.spectrogram import draw_spectrogram, log_spectrogram
from avgn.inspection.truth import draw_item, telling_frame, to_pixels
from avgn.runtime.manifest import Box, Item, Manifest, Part, Source, read_manifest, write_manifest
from avgn.runtime.sinks.drawing import color_of
from avgn.scenes import SceneConfig, synthesize
from tests.commands import forked, refused
from tests.importers import sets
from tests.importers.layouts import options, write_jpg, write_wav

CLASSES = ("bell", "drum", "flute")
LEFT: Box = (0.0, 0.25, 0.25, 0.75)
RIGHT: Box = (0.5, 0.5, 0.75, 1.0)


def source(label: str, sounding: bool, on_screen: bool, *boxes: Box, **values: Any) -> Source:
    return Source(label=label, sounding=sounding, on_screen=on_screen, boxes=boxes, **values)


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    """A still with a sounding bell and a silent drum, one with a sound off-screen, and a pair side by side."""
    frame = write_jpg(tmp_path / "frames" / "a.jpg", (96, 128))
    short, long = write_wav(tmp_path / "audio" / "a.wav", 0.5), write_wav(tmp_path / "audio" / "b.wav", 1.5)
    shared: dict[str, Any] = {"split": "test", "dataset": "small"}
    items = [
        Item(
            id="one",
            frame=frame,
            audio=short,
            video="v",
            sources=(source("bell", True, True, LEFT), source("drum", False, True, RIGHT)),
            **shared,
        ),
        Item(id="two", frame=frame, audio=long, video="v", sources=(source("drum", True, False),), **shared),
        Item(
            id="pair",
            parts=(Part(frame=frame, audio=short), Part(frame=frame, audio=long)),
            video="w",
            sources=(source("bell", True, True, LEFT, part=0), source("bell", True, True, LEFT, part=1)),
            **shared,
        ),
    ]
    write_manifest(tmp_path / "m.jsonl", CLASSES, items)
    return read_manifest(tmp_path / "m.jsonl")


def test_statistics_are_those_counted_by_hand(small: Manifest) -> None:
    summary = summarize(small)
    assert summary["items"] == 3 and summary["kinds"] == {"stills": 2, "pairs side by side": 1}
    assert summary["labels"] == {
        "bell": {"sounding": 3, "visible": 3, "off-screen": 0, "silent": 0},
        "drum": {"sounding": 1, "visible": 1, "off-screen": 1, "silent": 1},
        "flute": {"sounding": 0, "visible": 0, "off-screen": 0, "silent": 0},
    }
    assert summary["sources"] == {"sounding": {"1": 2, "2": 1}, "visible": {"0": 1, "2": 2}}
    assert summary["audio"]["files"] == 2 and summary["audio"]["rates"] == {"8000": 2}
    seconds = summary["audio"]["seconds"]
    assert (seconds["min"], seconds["p50"], seconds["max"], seconds["mean"]) == (0.5, 1.0, 1.5, 1.0)
    boxes = summary["boxes"]
    assert boxes["count"] == 4 and boxes["masks"] == 0
    assert boxes["area"]["min"] == boxes["area"]["max"] == 0.125 and boxes["aspect"]["p50"] == 0.5
    assert boxes["touching"] == 1.0 and boxes["suspicious"] == []
    assert summary["videos"] == {"v": 2, "w": 1}
    lines = lines_of(summary)
    assert "classes that no item has: 1 (flute)" in lines
    assert "videos: 2, largest: v 66.7 %, w 33.3 %" in lines
    assert "box area in percent of the frame: 12.5 to 12.5, median 12.5" in lines
    json.dumps(summary)


def items_with(boxes: list[Box]) -> list[Item]:
    return [
        Item(
            id=str(n),
            sources=(source("bell", True, True, *([] if box is None else [box])),),
            split="",
            dataset="",
            video="",
        )
        for n, box in enumerate(boxes)
    ]


def test_wrong_formats_are_suspicious() -> None:
    rng = np.random.default_rng(0)

    def some(count: int, size: float = 0.2) -> list[Box]:
        return [(x, y, x + size, y + size) for x, y in rng.uniform(0.05, 0.7, (count, 2)).tolist()]

    def doubts(boxes: list[Any]) -> list[str]:
        found: list[str] = box_statistics(items_with(boxes))["suspicious"]
        return found

    assert doubts(some(30)) == []
    assert doubts([*some(26), *[(0.0, 0.0, 1.0, 1.0)] * 3]) == [
        "3 of 29 boxes cover the whole frame: real boxes may be missing"
    ]
    assert doubts([*some(20), *some(3, 0.01)]) == [
        "3 of 23 boxes cover less than a thousandth of the frame: were pixels normalised twice?"
    ]
    cornered: list[Box] = [(0.1 * n, 0.1 * n, 1.0, 1.0) for n in range(1, 9)]
    assert doubts([*some(10), *cornered]) == [
        "8 of 18 boxes end in the lower right corner: were corners read as x, y, w, h?"
    ]
    assert doubts([*some(8), *[(0.1, 0.1, 0.5, 0.5)] * 9]) == ["9 of 17 boxes are the same, [0.1, 0.1, 0.5, 0.5]"]
    assert doubts([*some(10), None, None]) == [
        "2 of 12 visible sounding sources have no box: were x, y, w, h read as corners, which leaves most boxes empty?"
    ]
    # labels only is no mistake
    assert doubts([None] * 10) == []


def test_boxes_are_drawn_where_they_are(small: Manifest) -> None:
    picture, _ = draw_item(small.items[0], CLASSES, 240)
    assert picture.shape == (240, 320, 3)
    x1, y1, x2, y2 = to_pixels(RIGHT, (240, 320))
    assert (x1, y1, x2, y2) == (160, 120, 239, 239)
    for row, column in ((y2, 200), (180, x1), (180, x2), (y1, 235)):
        np.testing.assert_array_equal(picture[row, column], color_of(1))
    left, top, right, bottom = to_pixels(LEFT, (240, 320))
    for row, column in ((100, left), (100, right), (bottom, 40)):
        np.testing.assert_array_equal(picture[row, column], color_of(0))
    # elsewhere is the frame
    assert abs(int(picture[100, 120, 0]) - 120) <= 2 and abs(int(picture[180, 200, 0]) - 120) <= 2


def test_pairs_have_their_boxes_in_their_own_half(small: Manifest) -> None:
    picture, _ = draw_item(small.items[2], CLASSES, 240)
    assert picture.shape == (240, 640, 3)
    for half in (0, 320):
        np.testing.assert_array_equal(picture[100, half], color_of(0))
        np.testing.assert_array_equal(picture[100, half + 79], color_of(0))
        assert tuple(picture[100, half + 160]) == (120, 120, 120)


def test_masks_tint(tmp_path: Path) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[24:72, 32:96] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    item = Item(
        id="m",
        frame=write_jpg(tmp_path / "a.jpg", (96, 128)),
        audio=None,
        sources=(source("drum", True, True, mask=tmp_path / "mask.png"),),
        split="test",
        dataset="",
        video="",
    )
    picture, _ = draw_item(item, CLASSES, 96)
    expected = (0.65 * 120 + 0.35 * np.array(color_of(1))).astype(int)
    assert np.abs(picture[48, 64].astype(int) - expected).max() <= 2
    np.testing.assert_array_equal(picture[24, 64], color_of(1))
    assert abs(int(picture[10, 10, 0]) - 120) <= 2


def test_the_spectrogram_is_scipys_and_has_low_frequencies_below() -> None:
    rate = 22_050
    sound = np.sin(2 * np.pi * 2000 * np.arange(rate) / rate).astype(np.float32)
    found = log_spectrogram(sound)
    padded = np.pad(sound, 256, mode="reflect").astype(np.float64)
    _, _, expected = scipy.signal.stft(
        padded, nperseg=512, noverlap=292, window="hann", boundary=None, padded=False, scaling="spectrum"
    )
    power = np.abs(expected * 256) ** 2
    assert found.shape == (257, rate // 220)
    np.testing.assert_allclose(found, np.log(power + 1e-7)[:, : found.shape[1]], atol=1e-3)
    picture = draw_spectrogram(sound, (257, 100))
    brightest = int(picture.sum(axis=(1, 2)).argmax())
    assert abs(brightest - (256 - 2000 * 512 / rate)) <= 1
    for length in (1, 100, 300, 25 * rate):
        assert draw_spectrogram(np.zeros(length, np.float32), (40, 30)).max() <= 5


def test_the_sheet_and_the_page_hold_every_card(small: Manifest) -> None:
    cards = draw_cards(small, small.items)
    assert [card.fault for card in cards] == [None] * 3
    sheet = draw_sheet(cards)
    for color in (color_of(0), color_of(1)):
        assert (sheet == np.array(color)).all(axis=2).sum() > 200
    page = render_page(summarize(small), cards)
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(images) == 6
    for data in images:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) is not None
    assert "silent: drum" in page and "off-screen: drum" in page
    # nothing comes from elsewhere
    assert "http" not in page and "<script" not in page and "<link" not in page


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>\"&\N{BELL}"
    item = Item(
        id=f'{hostile}" onerror="alert(1)',
        frame=write_jpg(tmp_path / "a.jpg"),
        audio=write_wav(tmp_path / "a.wav"),
        sources=(source(hostile, True, True, (0.1, 0.1, 0.9, 0.9)),),
        split=hostile,
        dataset=hostile,
        video=hostile,
    )
    write_manifest(tmp_path / "m.jsonl", (hostile,), [item])
    manifest = read_manifest(tmp_path / "m.jsonl")
    cards = draw_cards(manifest, manifest.items)
    page = render_page(summarize(manifest), cards)
    assert "<script" not in page and 'onerror="' not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;") >= 5
    draw_sheet(cards)


def test_what_cannot_be_read_becomes_a_card_that_says_so(tmp_path: Path, small: Manifest) -> None:
    (tmp_path / "frames" / "a.jpg").write_bytes(b"no picture")
    sound = tmp_path / "audio" / "a.wav"
    sound.write_bytes(sound.read_bytes()[:-100])
    (tmp_path / "audio" / "b.wav").write_bytes(b"")
    cards = draw_cards(small, small.items)
    assert all(card.frame is None and card.fault is not None for card in cards)
    assert cards[0].spectrogram is not None and cards[1].spectrogram is None
    assert cards[0].fault is not None and "a.jpg is not an image that can be read" in cards[0].fault
    red = (draw_sheet(cards) == np.array((190, 0, 0))).all(axis=2).sum()
    assert red > 20
    faults = summarize(small)["audio"]["faults"]
    assert any("a.wav ends 100 bytes before its header says" in fault for fault in faults)
    assert any("b.wav is no wav file" in fault for fault in faults)
    assert 'class="fault"' in render_page(summarize(small), cards)


def test_videos_show_the_frame_with_most_sources(tmp_path: Path) -> None:
    path = synthesize(
        tmp_path / "set",
        scenes=1,
        seed=2,
        video_seconds=1.0,
        config=SceneConfig(split="test", sources=(1, 1), silent=(1, 1), off_screen=0.0, size=(160, 120)),
    )
    manifest = read_manifest(path)
    item = manifest.items[0]
    number = telling_frame(item)
    track = item.sources[0].track
    assert track is not None and track[number] is not None
    assert 0 < number < len(track) - 1
    picture, time = draw_item(item, manifest.classes, 240)
    assert time == pytest.approx(number / 25, abs=0.05)
    box = next(s.track[number] for s in item.sources if s.sounding and s.track is not None)
    assert box is not None
    left, _, right, bottom = to_pixels(box, picture.shape[:2])
    label = next(s.label for s in item.sources if s.sounding)
    color = np.array(color_of(manifest.classes.index(label)))
    assert (picture[bottom, left:right] == color).all(axis=1).mean() > 0.5
    assert draw_cards(manifest, [item])[0].spectrogram is not None
    assert summarize(manifest)["kinds"] == {"videos": 1}


def test_the_tracks_of_the_emptiest_and_the_shortest_are_no_trouble() -> None:
    nothing = Item(id="a", sources=(), split="", dataset="", video="")
    assert telling_frame(nothing) == 0
    tracks = (
        source("bell", True, True, track=(None, LEFT)),
        source("drum", True, True, track=(None, LEFT, LEFT, RIGHT)),
    )
    assert telling_frame(Item(id="a", sources=tracks, split="", dataset="", video="")) == 1


def test_picking_is_seeded_and_keeps_the_order(small: Manifest) -> None:
    assert pick(small.items, 99, 0) == list(small.items)
    for seed in range(5):
        picked = pick(small.items, 2, seed)
        assert picked == pick(small.items, 2, seed)
        assert [small.items.index(item) for item in picked] == sorted(small.items.index(item) for item in picked)
    assert len({tuple(item.id for item in pick(small.items, 1, seed)) for seed in range(20)}) == 3


def test_the_command(tmp_path: Path, small: Manifest) -> None:
    done = forked("inspect", small.path, "--json", tmp_path / "s.json")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[0] == "items: 3 (stills: 2, pairs side by side: 1)"
    assert json.loads((tmp_path / "s.json").read_text())["boxes"]["count"] == 4
    done = forked("inspect", small.path, "--output", tmp_path / "new" / "folder", "--count", 2, "--seed", 1)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert cv2.imread(str(tmp_path / "new" / "folder" / "sheet.png")) is not None
    assert (tmp_path / "new" / "folder" / "index.html").read_text().count("<figure>") == 2


def test_bad_input(tmp_path: Path, small: Manifest) -> None:
    assert "none.jsonl does not exist" in refused("inspect", tmp_path / "none.jsonl")
    assert "--count must be from 1 and --seed from 0, got 0 and 0" in refused("inspect", small.path, "--count", 0)
    assert "got 24 and -1" in refused("inspect", small.path, "--seed", -1)
    (tmp_path / "file").write_text("")
    message = refused("inspect", small.path, "--output", tmp_path / "file")
    assert message == f"avgn: folder {tmp_path / 'file'} can't be written (it is there already): choose another name"
    write_manifest(tmp_path / "empty.jsonl", CLASSES, [])
    assert "empty.jsonl has no items: there is nothing to inspect" in refused("inspect", tmp_path / "empty.jsonl")


def test_an_imported_set_can_be_inspected(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    found = import_dataset("vggsound-duet", options(root))
    manifest = read_manifest(root / "out.jsonl")
    summary = summarize(manifest)
    assert summary["kinds"] == {"pairs side by side": len(found.items)}
    assert summary["boxes"]["suspicious"][0].startswith("2 of 6 visible sounding sources have no box")
    assert all(card.fault is None for card in draw_cards(manifest, manifest.items))
