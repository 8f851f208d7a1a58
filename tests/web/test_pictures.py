"""What of a JPEG is decoded: only what was checked, whatever the file claims, and at a bounded cost."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from avgn.data.shards import Packed, decode
from avgn.inspection.truth import read_rgb
from avgn.runtime import InputError
from avgn.runtime.image import decode_still
from avgn.runtime.jpeg import EOI, JpegError, check_work, read_baseline
from avgn.runtime.reading import read_frame
from avgn.runtime.web import wire
from avgn.runtime.web.wire import WireError, decode_jpeg
from tests.hostile.web_attacks import jpeg, many_scans, two_headers

GOOD = jpeg(64, 48)
SOF, SOS = GOOD.index(b"\xff\xc0"), GOOD.index(b"\xff\xda")


def marked(marker: int, size: int = 4) -> bytes:
    """A good picture with another segment before its frame."""
    return GOOD[:SOF] + bytes([0xFF, marker]) + struct.pack(">H", size) + b"\0" * (size - 2) + GOOD[SOF:]


def changed(at: int, value: int) -> bytes:
    return GOOD[:at] + bytes([value]) + GOOD[at + 1 :]


REFUSED = {
    "two headers": two_headers(),
    "many scans": many_scans(),
    "two scans": GOOD[:-2] + GOOD[SOS:],
    "two frames": GOOD[:SOF] + GOOD[SOF : SOF + 19] + GOOD[SOF:],
    "no frame": GOOD[:SOF] + GOOD[SOF + 19 :],
    "no end": GOOD[:-2],
    "no scan": GOOD[:SOS] + EOI,
    "a picture within": GOOD[: SOS + 14] + GOOD + EOI,
    "lines follow": GOOD[:-2] + b"\xff\xdc\x00\x04\x00\x30" + EOI,
    "extended": GOOD.replace(b"\xff\xc0", b"\xff\xc1", 1),
    "progressive": jpeg(64, 48, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "arithmetic": GOOD.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "twelve bits": changed(SOF + 4, 12),
    "no height": GOOD[: SOF + 5] + b"\0\0" + GOOD[SOF + 7 :],
    "four components": changed(SOF + 9, 4),
    "sampled by five": changed(SOF + 11, 0x51),
    "the same component": changed(SOF + 13, GOOD[SOF + 10]),
    "a scan of one": GOOD[:SOS] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + GOOD[SOS + 14 :],
    "a part of the spectrum": changed(SOS + 12, 5),
    "many segments": GOOD[:2] + b"\xff\xfe\x00\x02" * 100 + GOOD[2:],
    "a long segment": GOOD[:2] + b"\xff\xe1\xff\xff" + GOOD[2:],
    "a short length": GOOD[:2] + b"\xff\xe1\x00\x01" + GOOD[2:],
    **{f"marker {value:02X}": marked(value) for value in (0x00, 0x01, 0x42, *range(0xD0, 0xDA), 0xDC, 0xF3)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_single_baseline_picture_is_refused_at_once(name: str) -> None:
    begin = time.process_time()
    with pytest.raises(JpegError):
        read_baseline(REFUSED[name])
    with pytest.raises(WireError) as refused:
        decode_jpeg(REFUSED[name])
    assert refused.value.code in (wire.INVALID, wire.UNSUPPORTED)
    assert time.process_time() - begin < 0.5


def test_pictures_of_browsers_and_cameras_are_decoded_as_opencv_does() -> None:
    rng = np.random.default_rng(0)
    for size in ((48, 64), (1, 1), (17, 31), (240, 320)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
        for options in (
            {"quality": 80},
            {"quality": 95, "subsampling": 0},
            {"quality": 50, "subsampling": 1, "restart_marker_blocks": 2},
            {"quality": 80, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0", "comment": b"\xff\xda within"},
            {"quality": 80, "icc_profile": b"\xff\xc0" * 100, "optimize": True},
        ):
            stream = io.BytesIO()
            image.save(stream, "JPEG", **options)
            data = stream.getvalue()
            theirs: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            assert np.array_equal(decode_jpeg(data), theirs[..., ::-1])
            # fill bytes before a marker, and anything after the end
            padded = data[:2] + b"\xff" * 3 + data[2:] + b"<html>"
            assert np.array_equal(decode_jpeg(padded), theirs[..., ::-1])
            assert len(read_baseline(data).data) <= len(data)
    grey = cv2.imencode(".jpg", rng.integers(0, 256, (20, 30), np.uint8))[1].tobytes()
    assert decode_jpeg(grey).shape == (20, 30, 3)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, 40), st.binary(max_size=8))
def test_damaged_pictures_have_the_size_that_was_checked(at: int, value: int, cut: int, more: bytes) -> None:
    data = GOOD[:at] + bytes([value]) + more + GOOD[at + 1 + cut :]
    try:
        checked = wire.check_jpeg(data)
        assert wire.decode(checked).shape == (checked.height, checked.width, 3)
    except WireError as error:
        assert error.code in (wire.INVALID, wire.UNSUPPORTED, wire.TOO_BIG)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_refused(data: bytes) -> None:
    for one in (data, GOOD[:2] + data, GOOD[:SOS] + data):
        with pytest.raises(WireError):
            decode_jpeg(one)


def test_damaged_pictures_write_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for at in range(SOS + 20, len(GOOD) - 2, 9):
        try:
            decode_jpeg(changed(at, 0x00))
        except WireError:
            continue
    assert capfd.readouterr() == ("", "")


def test_limits_are_those_of_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for width, height in ((1281, 8), (8, 1281), (1025, 1024)):
        with pytest.raises(WireError) as refused:
            wire.check_jpeg(jpeg(width, height))
        assert refused.value.code == wire.TOO_BIG
    assert wire.check_jpeg(jpeg(1280, 819)).width == 1280 and wire.check_jpeg(jpeg(1024, 1024)).height == 1024


# pictures of files


def test_stills_that_cost_minutes_are_refused(tmp_path: Path) -> None:
    for name, data in (("scans", many_scans()), ("headers", two_headers())):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(data)
        begin = time.process_time()
        with pytest.raises(InputError, match=str(path)):
            read_frame(path, (8, 8))
        with pytest.raises(InputError, match=str(path)):
            read_rgb(path)
        scene = Packed(frame=data, audio=b"", sounding=frozenset(), visible=frozenset())
        with pytest.raises(InputError, match="shard"):
            decode(scene)
        assert time.process_time() - begin < 2.0


def test_usual_stills_pass() -> None:
    for data in (
        GOOD,
        jpeg(640, 480, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        b"",
        b"\x89PNG",
        cv2.imencode(".png", np.ones((4, 4)))[1].tobytes(),
    ):
        check_work("it", data)
    image = decode_still("it", jpeg(640, 480, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert image is not None and image.shape == (480, 640, 3)
    # scans beyond the usual: what the first frame claims counts, or everything where the way to it is not clear
    check_work("it", many_scans(scans=60, side=64))
    with pytest.raises(ValueError, match="it is a JPEG of 60 scans"):
        check_work("it", b"\xff\xd8\xff\x00\x00\x04ab" + many_scans(scans=60, side=64)[2:])
    large = many_scans(scans=60, side=64)
    at = large.index(b"\xff\xc0") + 5
    with pytest.raises(ValueError, match="60 scans"):
        check_work("it", large[:at] + struct.pack(">HH", 6000, 6000) + large[at + 4 :])
