"""What travels over the socket: every field and every bound of the messages, up and down."""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from avgn.runtime.jpeg import read_baseline
from avgn.runtime.sinks.drawing import color_of
from avgn.runtime.web import wire
from avgn.runtime.web.wire import Frame, Samples, WireError
from tests.hostile.web_attacks import jpeg, message
from tests.web.visitors import result, source

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)


def code_of(read: Any, *given: Any) -> int:
    """The close code with which something is refused."""
    with pytest.raises(WireError) as refused:
        read(*given)
    assert refused.value.reason == str(refused.value) != ""
    return refused.value.code


def test_the_numbers_that_both_ends_know() -> None:
    """The page knows them by value, and so does whoever wrote a client of their own."""
    assert (wire.VERSION, wire.FRAME, wire.SAMPLES, wire.HEADER.size) == (1, 1, 2, 16)
    closing = (wire.UNSUPPORTED, wire.INVALID, wire.POLICY, wire.TOO_BIG, wire.FAILED, wire.FULL)
    assert closing == (1003, 1007, 1008, 1009, 1011, 1013)
    assert (wire.BAD_CLOCK, wire.NO_TOKEN, wire.IDLE, wire.TOO_FAST) == (4400, 4401, 4408, 4429)
    assert wire.RATES == RATES
    assert (wire.MAX_TEXT, wire.MAX_SIDE, wire.MAX_PIXELS) == (4096, 1280, 1_048_576)


# upwards, binary


def test_a_frame_is_its_time_and_its_picture() -> None:
    found = wire.read_binary(struct.pack("<BBBBId", 1, 0, 0, 0, 0, 12.5) + b"J")
    assert found == Frame(time=12.5, jpeg=b"J")
    # a frame has no rate, whatever stands there
    assert wire.read_binary(message(wire.FRAME, -3.0, b"JPEG", 7)) == Frame(time=-3.0, jpeg=b"JPEG")


def test_sound_is_little_endian_from_its_time_on() -> None:
    found = wire.read_binary(message(wire.SAMPLES, 2.25, b"\x01\x00\x00\x80\xff\x7f", 16000))
    assert isinstance(found, Samples) and (found.time, found.rate) == (2.25, 16000)
    assert found.samples.dtype == np.int16 and found.samples.tolist() == [1, -32768, 32767]


@pytest.mark.parametrize("rate", RATES)
def test_sound_of_browsers_is_taken_up_to_a_second(rate: int) -> None:
    found = wire.read_binary(message(wire.SAMPLES, 0.0, bytes(2 * rate), rate))
    assert isinstance(found, Samples) and len(found.samples) == rate == found.rate
    assert code_of(wire.read_binary, message(wire.SAMPLES, 0.0, bytes(2 * rate + 2), rate)) == wire.INVALID
    for other in (rate - 1, rate + 1):
        assert code_of(wire.read_binary, message(wire.SAMPLES, 0.0, bytes(2), other)) == wire.UNSUPPORTED


@pytest.mark.parametrize("size", [1, 3, 9, 15999])
def test_half_a_sample_is_no_sound(size: int) -> None:
    assert code_of(wire.read_binary, message(wire.SAMPLES, 0.0, bytes(size), 16000)) == wire.INVALID
    found = wire.read_binary(message(wire.SAMPLES, 0.0, bytes(size + 1), 16000))
    assert isinstance(found, Samples) and len(found.samples) == (size + 1) // 2


def test_binary_messages_have_a_header_content_a_kind_and_a_time() -> None:
    for size in (0, 1, 15, 16):
        assert code_of(wire.read_binary, message(wire.FRAME, 0.0, b"")[:size]) == wire.INVALID
    for kind in (0, 3, 255):
        assert code_of(wire.read_binary, message(kind, 0.0, b"xx", 48000)) == wire.UNSUPPORTED
    for kind in (wire.FRAME, wire.SAMPLES):
        for time in (float("nan"), float("inf"), float("-inf")):
            assert code_of(wire.read_binary, message(kind, time, b"xx", 48000)) == wire.BAD_CLOCK


def test_messages_are_values_that_nobody_changes() -> None:
    frame, sound = Frame(time=1.0, jpeg=b""), Samples(time=1.0, rate=8000, samples=np.zeros(2, np.int16))
    for one in (frame, sound):
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.time = 2.0  # type: ignore[misc]
        with pytest.raises(TypeError):
            cast(Any, type(one))(*dataclasses.astuple(one))
    # samples can't be compared in one word
    assert sound != replace(sound) and frame == replace(frame)


# upwards, text


def test_text_is_a_json_object_with_a_type() -> None:
    assert wire.read_text('{"type": "hello", "version": 1}') == {"type": "hello", "version": 1}
    for text in (
        *("", "{", "nonsense", "[]", '["type"]', "1", "null", '"type"', "{}", '{"type": 1}', '{"type": null}'),
        *('{"Type": "hello"}', '{"type": ["hello"]}', '{"type": "hello"'),
        # deeper than Python's stack
        *("[" * 4096, '{"type":' * 500),
    ):
        assert code_of(wire.read_text, text) == wire.INVALID, text


def test_text_has_a_length() -> None:
    start, end = '{"type": "', '"}'
    fits = start + "x" * (4096 - len(start + end)) + end
    assert len(fits) == 4096 and wire.read_text(fits)["type"].startswith("xxx")
    assert code_of(wire.read_text, fits.replace("x", "xx", 1)) == wire.TOO_BIG
    # characters count, not bytes
    assert wire.read_text(fits.replace("x", "é"))["type"].startswith("éé")


# pictures


@pytest.mark.parametrize(("width", "height"), [(1280, 1), (1, 1280), (1280, 819), (819, 1280), (1024, 1024)])
def test_pictures_within_the_limits_are_checked_as_they_are(width: int, height: int) -> None:
    found = wire.check_jpeg(jpeg(width, height))
    assert (found.width, found.height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(1281, 1), (1, 1281), (1281, 1281), (1025, 1024), (1024, 1025)])
def test_pictures_beyond_the_limits_are_too_big(width: int, height: int) -> None:
    assert code_of(wire.check_jpeg, jpeg(width, height)) == wire.TOO_BIG


def test_broken_pictures_and_other_kinds_are_told_apart() -> None:
    good = jpeg(16, 16)
    assert code_of(wire.check_jpeg, good[:-2]) == wire.INVALID
    assert code_of(wire.check_jpeg, good.replace(b"\xff\xc0", b"\xff\xc2", 1)) == wire.UNSUPPORTED


def test_the_decoder_sees_what_was_checked_or_nothing() -> None:
    picture = read_baseline(jpeg(32, 16))
    assert wire.decode(picture).shape == (16, 32, 3)
    for other in (replace(picture, width=31), replace(picture, height=17), replace(picture, width=16, height=32)):
        assert code_of(wire.decode, other) == wire.INVALID
    # Pillow says each in its own way: no JPEG, one that ends within its header, one that ends within its scan
    for data in (b"", b"\x89PNG\r\n\x1a\n", picture.data[:20], picture.data[:-40]):
        assert code_of(wire.decode, replace(picture, data=data)) == wire.INVALID


# downwards


def test_hello_says_what_there_is() -> None:
    said = json.loads(wire.hello(("bell", "flute"), (7, 9), "an engine", True))
    assert said == {
        "type": "hello",
        "version": 1,
        "classes": [
            {"label": label, "color": "#" + bytes(color_of(at)).hex()} for at, label in enumerate(("bell", "flute"))
        ],
        "grid": [7, 9],
        "engine": "an engine",
        "has_presence": True,
        "max_pixels": 1_048_576,
    }
    assert json.loads(wire.hello((), (1, 1), "", False))["has_presence"] is False


def test_maps_are_sent_row_after_row_as_levels_of_their_range() -> None:
    line = json.loads(wire.answer(result(source([[-2.0, -1.0, 0.0], [1.0, 2.0, 3.0]]), source(None)), 50.5))
    assert line["sources"][0]["map"] == [0, 51, 102, 153, 204, 255] and line["sources"][0]["range"] == [-2.0, 3.0]
    assert [one["index"] for one in line["sources"]] == [4, 4]
    assert line["sources"][1]["map"] is None and "range" not in line["sources"][1]
    # nearest, and a flat map is nothing at all
    assert json.loads(wire.answer(result(source([[0.0, 0.499 / 255, 0.501 / 255, 1.0]])), 0.0))["sources"][0][
        "map"
    ] == [*(0, 0, 1, 255)]
    assert json.loads(wire.answer(result(source([[5.0, 5.0]])), 0.0))["sources"][0]["map"] == [0, 0]


def test_a_range_has_five_digits() -> None:
    line = json.loads(wire.answer(result(source([[-0.1234567, 0.7654321]])), 0.0))
    assert line["sources"][0]["range"] == [-0.12346, 0.76543]


def test_a_result_is_its_line_at_the_visitors_own_time() -> None:
    given = result(source([[0.0, 1.0]]))
    line = json.loads(wire.answer(given, 1234.5678901))
    expected = {"type": "result", **given.to_json(), "time": 1234.5678901}
    for one in line["sources"]:
        assert one.pop("index") == 4 and one.pop("map") == [0, 255] and one.pop("range") == [0.0, 1.0]
    assert line == json.loads(json.dumps(expected)) and (line["dropped"], line["frame"]) == (2, 3)


def test_what_is_no_number_is_never_sent() -> None:
    """JSON has no word for it, and a page's JSON.parse would fail on Python's."""
    with pytest.raises(ValueError):
        wire.answer(replace(result(), ms={"image": float("nan")}), 0.0)
    with pytest.raises(ValueError):
        wire.answer(result(), float("inf"))
