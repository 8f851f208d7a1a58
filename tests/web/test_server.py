"""The server of the page, spoken to over real sockets: who may come in, and what hostile visitors achieve."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from avgn.runtime import InputError, Localizer
from avgn.runtime.web import wire
from avgn.runtime.web.limits import Bucket, Limits
from avgn.runtime.web.server import serve
from avgn.runtime.web.wire import WireError
from tests.web.browser import serving

HELLO = json.dumps({"type": "hello", "version": 1})
TOKEN = "a-token-of-some-length"


def jpeg(width: int = 320, height: int = 240, **options: int) -> bytes:
    rgb = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    big = cv2.resize(rgb, (width, height))
    return bytes(
        cv2.imencode(".jpg", big, [v for pair in options.items() for v in (getattr(cv2, pair[0]), pair[1])])[1]
    )


def message(kind: int, time: float, body: bytes, rate: int = 0) -> bytes:
    return struct.pack("<B3xId", kind, rate, time) + body


def talk(url: str, **options: Any) -> ClientConnection:
    return connect(url.replace("http", "ws", 1) + "stream", open_timeout=10, **options)


def closed(socket: ClientConnection, seconds: float = 5.0) -> int:
    """Read to the end of a connection; its close code."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.recv(timeout=max(0.01, deadline - time.monotonic()))
        except ConnectionClosed as error:
            assert error.rcvd is not None
            return error.rcvd.code
        except TimeoutError:
            break
    raise AssertionError(f"still open after {seconds} s")


class Visitor(threading.Thread):
    """A good visitor: 15 frames/s and sound in real time, until told to leave."""

    def __init__(self, url: str, token: str | None = None) -> None:
        super().__init__(name="visitor", daemon=True)
        self.url, self.token = url, token
        self.results: list[tuple[float, dict[str, Any]]] = []
        self.failure: BaseException | None = None
        self.leaving = threading.Event()

    def run(self) -> None:
        try:
            with talk(self.url) as socket:
                socket.send(json.dumps({"type": "hello", "version": 1, "token": self.token}))
                assert json.loads(socket.recv(timeout=5))["type"] == "hello"
                picture, begin, index = jpeg(), time.monotonic(), 0
                noise = np.random.default_rng(0).integers(-3000, 3000, 3200, np.int16).tobytes()
                while not self.leaving.is_set():
                    at = index / 15
                    socket.send(message(wire.SAMPLES, 100 + at, noise, 48000))
                    socket.send(message(wire.FRAME, 100 + at, picture))
                    index += 1
                    while (left := begin + index / 15 - time.monotonic()) > 0:
                        try:
                            self.results.append((time.monotonic(), json.loads(socket.recv(timeout=left))))
                        except TimeoutError:
                            break
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> Visitor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leaving.set()
        self.join(10)
        assert self.failure is None, repr(self.failure)

    def wait(self, count: int, seconds: float = 10.0) -> None:
        start, deadline = len(self.results), time.monotonic() + seconds
        while len(self.results) < start + count:
            assert time.monotonic() < deadline and self.failure is None, self.failure
            time.sleep(0.01)


@pytest.fixture(scope="module")
def guarded(tiny: Localizer) -> Iterator[str]:
    with serving(tiny, token=TOKEN, limits=Limits(sessions=2, idle=1.0, hello=0.5, token_delay=0.05)) as address:
        yield address


def get(address: str, **headers: str) -> tuple[int, bytes, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=5) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def await_sessions(url: str, count: int, seconds: float = 10.0) -> None:
    """Wait until the server counts `count` visitors: a session ends a moment after its visitor has left."""
    deadline = time.monotonic() + seconds
    while (held := json.loads(get(url + "healthz")[1])["sessions"]) != count:
        assert time.monotonic() < deadline, f"{held} sessions, not {count}, after {seconds} s"
        time.sleep(0.02)


def test_the_page_and_its_headers(url: str) -> None:
    status, body, headers = get(url)
    assert status == 200 and b"Use camera and microphone" in body
    assert "default-src 'none'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    for name in ("app.js", "capture.js", "view.js", "wire.js", "worklet.js", "style.css", "icon.svg"):
        status, body, _ = get(url + name)
        assert status == 200 and body
        # nothing from anywhere else
        outside = body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http://" not in outside and b"https://" not in outside
    assert get(url + "../pyproject.toml")[0] == 404 and get(url + "%2e%2e/app.py")[0] == 404
    # a foreign name that leads here, and a foreign page
    assert get(url, Host="evil.example")[0] == 403 and get(url, Origin="http://evil.example")[0] == 403
    assert get(url, Host="localhost:1", Origin="http://localhost:1")[0] == 200


def test_results_come_with_maps_and_are_counted(url: str, tiny: Localizer) -> None:
    await_sessions(url, 0)
    with Visitor(url) as visitor:
        visitor.wait(30)
        health = json.loads(get(url + "healthz")[1])
        assert health == {"status": "ok", "sessions": 1, "engine": tiny.engine.name}
    times = [result["time"] for _, result in visitor.results]
    assert times == sorted(times) and times[0] >= 100
    for _, result in visitor.results:
        assert result["type"] == "result" and result["state"] in ("source", "off-screen", "unknown", "none")
        for source in result["sources"]:
            if source["on_screen"]:
                height, width = tiny.bundle.grid
                assert len(source["map"]) == height * width and min(source["map"]) == 0 and max(source["map"]) == 255
    text = get(url + "metrics")[1].decode()
    counted = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}
    assert counted["avgn_results_total"] >= len(visitor.results) and counted["avgn_audio_seconds_total"] > 1
    assert counted['avgn_latency_seconds_bucket{le="0.16"}'] > 0.9 * counted["avgn_latency_seconds_count"]


def test_who_may_come_in(guarded: str) -> None:
    port = guarded.rstrip("/").rsplit(":", 1)[1]
    with pytest.raises(InvalidStatus) as refused:
        talk(guarded, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with talk(guarded, origin=f"http://127.0.0.1:{port}") as one:
        one.send(json.dumps({"type": "hello", "version": 1, "token": TOKEN}))
        assert json.loads(one.recv(timeout=5))["type"] == "hello"
    for token in (None, "", "wrong", TOKEN[:-1], 7, {"a": 1}, "\ud800", "ü" * 20):
        with talk(guarded) as one:
            one.send(json.dumps({"type": "hello", "version": 1, "token": token}))
            assert closed(one) == wire.NO_TOKEN
    for first in (b"\x01" * 40, "hello", json.dumps({"type": "hello", "version": 2}), json.dumps(["hello"])):
        with talk(guarded) as one:
            one.send(first)
            assert closed(one) in (wire.POLICY, wire.INVALID)
    with talk(guarded) as one:
        assert closed(one) == wire.IDLE
    assert get(guarded + "metrics")[0] == 401
    assert get(guarded + "metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert get(guarded + "metrics", Authorization="Bearer wrong")[0] == 401
    assert get(guarded + "healthz")[0] == 200


def test_full_idle_and_fast(guarded: str) -> None:
    hello = json.dumps({"type": "hello", "version": 1, "token": TOKEN})
    await_sessions(guarded, 0)
    with Visitor(guarded, TOKEN) as visitor, talk(guarded) as silent:
        silent.send(hello)
        assert json.loads(silent.recv(timeout=5))["type"] == "hello"
        visitor.wait(1)
        silent.send(message(wire.FRAME, 1.0, jpeg()))
        assert json.loads(silent.recv(timeout=5))["type"] == "result"
        with talk(guarded) as third:
            third.send(hello)
            # whoever only looks has no place yet, and needs none
            assert json.loads(third.recv(timeout=5))["type"] == "hello"
            third.send(message(wire.FRAME, 1.0, jpeg()))
            assert closed(third) == wire.FULL
        assert closed(silent) == wire.IDLE
        # its place is free again
        await_sessions(guarded, 1)
        with talk(guarded) as greedy:
            greedy.send(hello)
            assert json.loads(greedy.recv(timeout=5))["type"] == "hello"
            with contextlib.suppress(ConnectionClosed):
                for _ in range(2000):
                    greedy.send(json.dumps({"type": "alive"}))
            assert closed(greedy) == wire.TOO_FAST


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


def test_two_hundred_hostile_visitors_hurt_nobody(url: str) -> None:
    chance = random.Random(0)
    codes: Counter[tuple[str, int]] = Counter()
    with Visitor(url) as visitor:
        visitor.wait(30)
        begin = time.monotonic()
        for _ in range(200):
            kind, messages = hostile(chance)
            with talk(url, max_size=None) as attacker:
                attacker.send(HELLO)
                assert json.loads(attacker.recv(timeout=5))["type"] == "hello"
                for one in messages:
                    attacker.send(one)
                codes[kind, closed(attacker)] += 1
        took = time.monotonic() - begin
        visitor.wait(15)
    assert not {(kind, code) for kind, code in codes if code not in CODES[kind]}, codes
    assert len({kind for kind, _ in codes}) >= 20, codes
    # who behaves gets results all the time
    times = [at for at, _ in visitor.results if begin <= at <= begin + took]
    assert len(times) >= 10 * took, (len(times), took)
    assert max(np.diff(times)) < 1.0
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


def test_a_reset_starts_a_new_clock(url: str) -> None:
    picture = jpeg()
    with talk(url) as one:
        one.send(HELLO)
        one.recv(timeout=5)
        for start in (5.0, 1e6, 3.0):
            one.send(json.dumps({"type": "sound-end"}))
            for index in range(5):
                one.send(message(wire.FRAME, start + index / 30, picture))
                answer = json.loads(one.recv(timeout=5))
                assert answer["time"] == start + index / 30 and answer["frame"] == index
            one.send(json.dumps({"type": "reset"}))


def test_a_bucket_refills() -> None:
    bucket = Bucket(10.0, 2.0, 0.0)
    assert all(bucket.take(1, 0.0) for _ in range(20)) and not bucket.take(1, 0.0)
    assert bucket.take(1, 0.1) and not bucket.take(1, 0.1)
    assert all(bucket.take(1, 100.0) for _ in range(20)) and not bucket.take(1, 100.0)


def test_https(tiny: Localizer, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    with serving(tiny, tls_cert=str(certificate), tls_key=str(key), host="0.0.0.0", token=TOKEN) as address:
        port = address.rstrip("/").rsplit(":", 1)[1]
        assert address.startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", timeout=5, context=trust) as answer:
            assert json.loads(answer.read())["status"] == "ok"
            assert answer.headers["strict-transport-security"] == "max-age=2592000"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        origin: Any = f"https://127.0.0.1:{port}"
        with connect(f"wss://127.0.0.1:{port}/stream", ssl=trust, origin=origin) as one:
            one.send(json.dumps({"type": "hello", "version": 1, "token": TOKEN}))
            assert json.loads(one.recv(timeout=5))["type"] == "hello"
    with pytest.raises(InputError, match="no pair in PEM"):
        serve(tiny, port=0, tls_cert=str(key), tls_key=str(certificate))


def test_what_can_not_be_served_is_said_before_anything_listens(tiny: Localizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--host 0.0.0.0 is reached by other machines and needs --token.*plain http"):
        serve(tiny, host="0.0.0.0", port=0)
    with pytest.raises(InputError, match="at least 16 printable"):
        serve(tiny, host="0.0.0.0", port=0, token="short")
    with pytest.raises(InputError, match="go together"):
        serve(tiny, port=0, tls_cert="c.pem")
    with pytest.raises(InputError, match="--tls-cert .* is not a file"):
        serve(tiny, port=0, tls_cert=str(tmp_path / "no"), tls_key=str(tmp_path / "no"))
    with pytest.raises(InputError, match="--port must be"):
        serve(tiny, port=70000)
    with pytest.raises(InputError, match="--allow-origin must be"):
        serve(tiny, port=0, origins=("example.org",))
    with pytest.raises(InputError, match="--host nowhere.invalid is not an address"):
        serve(tiny, host="nowhere.invalid", port=0, token=TOKEN)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"port \d+ of 127.0.0.1 can't be opened"):
            serve(tiny, port=taken.getsockname()[1])
    for name, value in (("sessions", 0), ("idle", 0.0)):
        with pytest.raises(InputError):
            Limits(**{name: value})  # type: ignore[arg-type]
