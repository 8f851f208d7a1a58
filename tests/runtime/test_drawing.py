"""What is drawn on pictures: labels that fit in any shape, names of any script, the decision's own percentages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime.arrays import Pixels
from avgn.runtime.decision import Heard
from avgn.runtime.result import Result
from avgn.runtime.sinks import drawing, fonts, text
from avgn.runtime.sinks.drawing import color_of
from avgn.runtime.sinks.labels import Labels

LONG = "female_speech,_woman_speaking_on_the_playground"
BLACK = (0, 0, 0)
SCRIPTS = {
    "Chinese": "吉他",
    "Japanese": "三味線",
    "Korean": "가야금",
    "Arabic": "عود",
    "Hebrew": "כינור",
    "Cyrillic": "балалайка",
    "Greek": "λύρα",
    "accents": "Flöte čello",
}


def heard(label: str, *, index: int = 0, on_screen: bool = True, certainty: float = 0.93, x: float = 0.5) -> Heard:
    heat = np.zeros((8, 8), np.float32)
    heat[4, min(7, int(8 * x))] = 1
    place = {"peak": (x, 0.5), "box": (max(0.0, x - 0.1), 0.4, min(1.0, x + 0.1), 0.6), "map": heat}
    return Heard(
        label=label,
        index=index,
        audio_prob=0.12,
        visual_prob=0.9,
        on_screen=on_screen,
        certainty=certainty,
        **(place if on_screen else {}),  # type: ignore[arg-type]
    )


def result(*sources: Heard, state: str = "source") -> Result:
    return Result(
        time=0.0,
        frame=0,
        state=state,
        sources=sources,
        audio_prob=np.zeros(1, np.float32),
        visual_prob=np.zeros(1, np.float32),
        maps=np.zeros((1, 8, 8), np.float32),
        loudness_db=-20,
        window=0,
        ms={},
    )


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without fonts, and with an OpenCV that has none either."""

    def clear() -> None:
        for cached in (fonts.font_files, fonts.font_of, text.drawable, text.render, text._opencv_has):
            cached.cache_clear()
        fonts._recent.clear()

    clear()
    monkeypatch.setattr(fonts, "font_folders", lambda: [])
    monkeypatch.setattr(text, "_opencv_face", lambda: None)
    yield
    monkeypatch.undo()
    clear()


@pytest.mark.parametrize("size", [(360, 640), (1280, 720), (320, 180), (1080, 1920), (64, 48), (24, 24), (2160, 100)])
def test_labels_lie_in_the_picture_and_keep_their_percentage(size: tuple[int, int]) -> None:
    for at in ((0, 0), (size[1], size[0]), (size[1] // 2, size[0] // 2), (-5, 3)):
        labels = Labels(np.zeros((*size, 3), np.uint8), 4)
        yellow = (255, 255, 0)
        for right in (False, True):
            name, share, text_size, _, _ = labels._fit(LONG, "100%", labels.width)
            x1, y1, x2, y2 = labels.put_right(LONG, "100%", yellow) if right else labels.put(LONG, "100%", yellow, at)
            assert 0 <= y1 < y2 <= max(size[0], y2 - y1) and x2 <= size[1] + (0 if size[1] > 40 else 20)
            assert share == "100%" and (name == "" or name[0] == "f")
            if min(size) >= 180:
                assert x1 >= 0 and len(name) >= 12 and text_size >= 11
                # the share is drawn: its right end has ink on it
                share_width = text.text_width("100%", text_size)
                area = labels.drawn[y1:y2, x2 - share_width - 4 : x2 - 2]
                assert (area.sum(axis=2) < 200).sum() > share_width / 2


def test_a_label_stands_on_its_corner_and_the_next_one_beside_it() -> None:
    labels = Labels(np.zeros((200, 300, 3), np.uint8), 3)
    first = labels.put("dog", "93%", (255, 0, 0), (50, 100))
    height = first[3] - first[1]
    # above the corner, as long as there is room above it
    assert first[0] == 50 and first[3] == 100
    # at the same corner: directly above or below what is there
    second = labels.put("cat", "80%", (0, 255, 0), (50, 100))
    assert second[1] in (first[1] - height, first[3])
    assert Labels(np.zeros((200, 300, 3), np.uint8), 3).put("dog", "93%", BLACK, (50, 4))[1] == 4
    right = labels.put_right("bird", "70%", BLACK)
    assert right[2] == 300 - 3 and right[1] == 3


def test_labels_do_not_cover_each_other() -> None:
    labels = Labels(np.zeros((360, 640, 3), np.uint8), 4)
    boxes = [labels.put(f"name {n}", "93%", (255, 0, 0), (600, 350)) for n in range(12)]
    boxes += [labels.put_right(f"off-screen: {n}", "93%", (255, 0, 0)) for n in range(5)]
    for n, (x1, y1, x2, y2) in enumerate(boxes):
        assert x1 >= 0 and y1 >= 0 and x2 <= 640 and y2 <= 360
        assert not any(x1 < b[2] and b[0] < x2 and y1 < b[3] and b[1] < y2 for b in boxes[:n])
    # a picture too small for all of them still takes them
    small = Labels(np.zeros((20, 60, 3), np.uint8), 1)
    for n in range(9):
        small.put(f"name {n}", "93%", (255, 0, 0), (0, 0))


def test_a_long_name_gets_smaller_before_it_is_cut() -> None:
    labels = Labels(np.zeros((1080, 1920, 3), np.uint8), 4)
    for room, whole in ((1400, True), (1000, True), (300, False)):
        name, share, size, width, _ = labels._fit(LONG, "87%", room)
        assert width <= room and share == "87%" and size >= 0.75 * labels.size - 1
        assert (name == LONG) is whole and (whole or name.endswith("…"))


@pytest.mark.parametrize("name", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_every_script_is_drawn_with_a_font_that_has_it(name: str) -> None:
    lacking = [char for char in name if fonts.font_of(char) is False and not text._opencv_has(char)]
    if lacking:
        pytest.skip("no font here has this script")
    assert text.drawable(name) == name
    drawn = [text.render(char, 24, BLACK)[..., 3] for char in dict.fromkeys(name) if not char.isspace()]
    # no two letters look alike, as boxes or question marks would
    assert len({picture.tobytes() for picture in drawn}) == len(drawn) and all(picture.any() for picture in drawn)


def test_arabic_letters_are_joined_and_run_to_the_left() -> None:
    from PIL import features

    if not features.check("raqm") or not features.check("fribidi") or fonts.font_of("ع") is False:
        pytest.skip("this Pillow can't shape text, or no font here has Arabic letters")
    alone = [text.render(char, 40, BLACK)[..., 3] for char in "عود"]
    word = text.render("عود", 40, BLACK)[..., 3]
    # dal stands alone and last, which is left
    dal = alone[2]
    found = word[:, : dal.shape[1]]
    assert np.abs(found.astype(int) - dal).mean() < 20


def test_without_a_font_a_class_keeps_its_number(bare: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert text.drawable("flute") == "flute" and not caplog.records
        for _ in range(3):
            assert text.drawable("吉他 guitar") == "guitar" and text.drawable("吉他") == ""
    assert [record.getMessage() for record in caplog.records] == [
        f"no font on this machine has 吉他 of {name!r}: install one (such as fonts-noto-core, -cjk or -color-emoji), "
        "or set AVGN_FONT to its file"
        for name in ("吉他 guitar", "吉他")
    ]
    assert drawing._name(heard("吉他", index=4)) == "class 5"
    picture = np.full((90, 160, 3), 99, np.uint8)
    assert (result(heard("吉他")).plot(picture) != picture).any()


def test_a_font_of_ones_own(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib, whose font is drawn, is not installed")
    own = Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    assert text.drawable("ж") == ""
    monkeypatch.setenv("AVGN_FONT", str(own))
    for cached in (fonts.font_files, fonts.font_of, text.drawable):
        cached.cache_clear()  # type: ignore[attr-defined]
    assert text.drawable("ж") == "ж" and fonts.font_of("ж") == own


def test_the_decisions_percentage_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    real = text.put

    def put(picture: Pixels, words: str, at: tuple[int, int], size: int, ink: text.Color) -> None:
        drawn.append(words)
        real(picture, words, at, size, ink)

    monkeypatch.setattr("avgn.runtime.sinks.labels.put", put)
    found = result(heard("flute", certainty=0.93), heard("organ_pipe", on_screen=False, index=1, certainty=0.875))
    found.plot(np.zeros((360, 640, 3), np.uint8))
    assert drawn == ["flute", "93%", "off-screen: organ pipe", "88%"]
    drawn.clear()
    result(state="unknown").plot(np.zeros((360, 640, 3), np.uint8))
    assert [word for word in drawn if word] == ["unknown sound"]


def test_drawing_leaves_the_frame_and_stays_in_bounds() -> None:
    for size in ((1, 1), (7, 300), (300, 7), (40, 40)):
        picture = np.full((*size, 3), 90, np.uint8)
        out = result(heard("a", x=0.0), heard("b", x=1.0, index=1), heard(LONG, on_screen=False)).plot(picture)
        assert out.shape == picture.shape and (picture == 90).all()


def test_the_box_has_the_colour_of_its_class() -> None:
    out = result(heard("flute", index=3)).plot(np.zeros((240, 240, 3), np.uint8))
    np.testing.assert_array_equal(out[130, round(0.4 * 240)], color_of(3))
