"""What strangers send: two hundred hostile visitors, and pictures that are cut off or lie about their size."""

from __future__ import annotations

import json
import random
import struct
import time
from collections import Counter

import cv2
import numpy as np

from avgn.runtime.web import wire
from avgn.runtime.web.wire import WireError
from tests.patience import PATIENCE, tried_again
from tests.web.visits import HELLO, Visitor, await_sessions, closed, get, jpeg, message, talk


def hostile(random: random.Random) -> tuple[str, list[str | bytes]]:
    """One attack: its kind and its messages, of which the last one must end the connection."""
    good, now = jpeg(), 50.0
    header = good[: good.index(b"\xff\xc0") + 5]
    tail = good[good.index(b"\xff\xc0") + 9 :]
    bomb = header + struct.pack(">HH", 65535, 65535) + tail
    tall = header + struct.pack(">HH", 65000, 16) + tail
    kinds: dict[str, list[str | bytes]] = {
        "random": [b"\x09" + random.randbytes(random.randrange(1, 5000))],
        "short": [random.randbytes(random.randrange(0, 17))],
        "kind": [message(random.randrange(3, 256), now, good)],
        "too big": [random.randbytes(300_000)],
        "no picture": [message(wire.FRAME, now, random.randbytes(random.randrange(1, 3000)))],
        "png": [message(wire.FRAME, now, b"\x89PNG\r\n\x1a\n" + random.randbytes(100))],
        "bomb": [message(wire.FRAME, now, bomb)],
        "tall": [message(wire.FRAME, now, tall)],
        "cut": [message(wire.FRAME, now, good[: random.randrange(2, good.index(b"\xff\xda"))])],
        "progressive": [message(wire.FRAME, now, jpeg(IMWRITE_JPEG_PROGRESSIVE=1))],
        "large": [message(wire.FRAME, now, jpeg(1288, 64))],
        "nan": [message(wire.FRAME, float("nan"), good)],
        "infinite": [message(wire.SAMPLES, float("-inf"), b"\0\0" * 10, 48000)],
        "jump": [message(wire.SAMPLES, 1.0, b"\0\0" * 10, 48000), message(wire.SAMPLES, 1e300, b"\0\0" * 10, 48000)],
        "back": [message(wire.FRAME, 1e9, good), message(wire.FRAME, -1e9, good)],
        "rate": [message(wire.SAMPLES, now, b"\0\0" * 10, random.choice((0, 1, 44101, 2**32 - 1)))],
        "other rate": [message(wire.SAMPLES, now, b"\0\0" * 10, 48000), message(wire.SAMPLES, now, b"\0\0" * 10, 8000)],
        "odd": [message(wire.SAMPLES, now, b"\0" * 11, 48000)],
        "long": [message(wire.SAMPLES, now, b"\0" * 32768, 8000)],
        "no json": ["".join(chr(random.randrange(32, 0xD7FF)) for _ in range(random.randrange(1, 500)))],
        "nested": ["[" * 4000],
        "no object": [json.dumps(random.choice((1, None, [], "x", {}, {"type": 3}, {"type": "dance"})))],
        "long text": ["x" * 5000],
    }
    kind = random.choice(list(kinds))
    return kind, kinds[kind]


# what each attack is told
CODES = {
    "random": {wire.UNSUPPORTED, wire.INVALID, wire.BAD_CLOCK},
    "short": {wire.INVALID},
    "kind": {wire.UNSUPPORTED},
    "too big": {wire.TOO_BIG},
    "no picture": {wire.UNSUPPORTED},
    "png": {wire.UNSUPPORTED},
    "bomb": {wire.TOO_BIG},
    "tall": {wire.TOO_BIG},
    "cut": {wire.INVALID},
    "progressive": {wire.UNSUPPORTED},
    "large": {wire.TOO_BIG},
    "nan": {wire.BAD_CLOCK},
    "infinite": {wire.BAD_CLOCK},
    "jump": {wire.BAD_CLOCK},
    "back": {wire.BAD_CLOCK},
    "rate": {wire.UNSUPPORTED},
    "other rate": {wire.UNSUPPORTED},
    "odd": {wire.INVALID},
    "long": {wire.INVALID},
    "no json": {wire.INVALID},
    "nested": {wire.INVALID},
    "no object": {wire.UNSUPPORTED, wire.INVALID},
    "long text": {wire.TOO_BIG},
}


@tried_again
def test_two_hundred_hostile_visitors_hurt_nobody(url: str) -> None:
    chance = random.Random(0)
    codes: Counter[tuple[str, int]] = Counter()
    with Visitor(url) as visitor:
        begin = time.monotonic()
        visitor.wait(30)
        # a machine with much else to do gives fewer
        usual = 30 / (time.monotonic() - begin)
        begin = time.monotonic()
        for _ in range(200):
            kind, messages = hostile(chance)
            with talk(url, max_size=None) as attacker:
                attacker.send(HELLO)
                assert json.loads(attacker.recv(timeout=PATIENCE))["type"] == "hello"
                for one in messages:
                    attacker.send(one)
                codes[kind, closed(attacker)] += 1
        took = time.monotonic() - begin
        visitor.wait(15)
    assert not {(kind, code) for kind, code in codes if code not in CODES[kind]}, codes
    assert len({kind for kind, _ in codes}) >= 20, codes
    # who behaves gets results all the time
    times = [at for at, _ in visitor.results if begin <= at <= begin + took]
    assert len(times) >= usual / 2 * took, (len(times), took, usual)
    assert max(np.diff(times)) < 2.0
    await_sessions(url, 0)
    assert json.loads(get(url + "healthz")[1])["status"] == "ok"


def test_a_picture_that_lies_about_its_size_is_decoded_or_refused() -> None:
    good = jpeg()
    at = good.index(b"\xff\xc0") + 5
    lying = good[:at] + struct.pack(">HH", 1000, 1000) + good[at + 4 :]
    try:
        assert wire.decode_jpeg(lying).shape == (1000, 1000, 3)
    except WireError as error:
        assert error.code == wire.INVALID
    assert wire.decode_jpeg(good).shape == (240, 320, 3)
    # colours arrive in the order of the engines
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 2] = 255
    rgb = wire.decode_jpeg(bytes(cv2.imencode(".jpg", red)[1]))
    assert rgb[32, 32, 0] > 250 and rgb[32, 32, 2] < 5
    grey = bytes(cv2.imencode(".jpg", red[..., 2])[1])
    assert wire.decode_jpeg(grey).shape == (64, 64, 3)


def test_every_cut_of_a_picture_is_refused_or_decoded() -> None:
    good = jpeg(64, 48)
    for length in range(0, len(good), 7):
        try:
            assert wire.decode_jpeg(good[:length]).shape == (48, 64, 3)
        except WireError as error:
            assert error.code in (wire.INVALID, wire.UNSUPPORTED)
