"""The server of the page, spoken to over real sockets: who may come in, and what hostile visitors achieve."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from avgn.runtime import InputError, Localizer
from avgn.runtime.web import wire
from avgn.runtime.web.limits import Bucket, Limits
from avgn.runtime.web.server import serve
from tests.patience import PATIENCE
from tests.web.browser import serving
from tests.web.visits import HELLO, TOKEN, Visitor, await_sessions, closed, get, jpeg, message, talk


@pytest.fixture(scope="module")
def guarded(tiny: Localizer) -> Iterator[str]:
    with serving(tiny, token=TOKEN, limits=Limits(sessions=2, idle=1.0, hello=1.0, token_delay=0.05)) as address:
        yield address


def test_the_page_and_its_headers(url: str) -> None:
    status, body, headers = get(url)
    assert status == 200 and b'<button id="start"' in body
    assert "default-src 'none'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    for name in ("app.js", "capture.js", "view.js", "wire.js", "words.js", "worklet.js", "style.css", "icon.svg"):
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
    assert counted['avgn_latency_seconds_bucket{le="1.28"}'] > 0.9 * counted["avgn_latency_seconds_count"]


def test_who_may_come_in(guarded: str) -> None:
    port = guarded.rstrip("/").rsplit(":", 1)[1]
    with pytest.raises(InvalidStatus) as refused:
        talk(guarded, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with talk(guarded, origin=f"http://127.0.0.1:{port}") as one:
        one.send(json.dumps({"type": "hello", "version": 1, "token": TOKEN}))
        assert json.loads(one.recv(timeout=PATIENCE))["type"] == "hello"
    for token in (None, "", "wrong", TOKEN[:-1], 7, {"a": 1}, "\ud800", "ü" * 20):
        with talk(guarded) as one:
            one.send(json.dumps({"type": "hello", "version": 1, "token": token}))
            assert closed(one) == wire.NO_TOKEN
    for first in (b"\x01" * 40, "hello", json.dumps({"type": "hello", "version": 2}), json.dumps(["hello"])):
        with talk(guarded) as one:
            one.send(first)
            assert closed(one) in (wire.POLICY, wire.INVALID)
    with talk(guarded) as one:
        assert closed(one, 4.5) == wire.IDLE
    assert get(guarded + "metrics")[0] == 401
    assert get(guarded + "metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert get(guarded + "metrics", Authorization="Bearer wrong")[0] == 401
    assert get(guarded + "healthz")[0] == 200


def test_full_idle_and_fast(guarded: str) -> None:
    hello = json.dumps({"type": "hello", "version": 1, "token": TOKEN})
    await_sessions(guarded, 0)
    with Visitor(guarded, TOKEN) as visitor:
        visitor.wait(1)
        with Visitor(guarded, TOKEN) as other, talk(guarded) as third:
            other.wait(1)
            third.send(hello)
            # whoever only looks has no place yet, and needs none
            assert json.loads(third.recv(timeout=PATIENCE))["type"] == "hello"
            third.send(message(wire.FRAME, 1.0, jpeg()))
            assert closed(third) == wire.FULL
        await_sessions(guarded, 1)
        with talk(guarded) as silent:
            silent.send(hello)
            assert json.loads(silent.recv(timeout=PATIENCE))["type"] == "hello"
            silent.send(message(wire.FRAME, 1.0, jpeg()))
            assert json.loads(silent.recv(timeout=PATIENCE))["type"] == "result"
            assert closed(silent, 15.0) == wire.IDLE
        # its place is free again
        await_sessions(guarded, 1)
        with talk(guarded) as greedy:
            greedy.send(hello)
            assert json.loads(greedy.recv(timeout=PATIENCE))["type"] == "hello"
            with contextlib.suppress(ConnectionClosed):
                for _ in range(2000):
                    greedy.send(json.dumps({"type": "alive"}))
            assert closed(greedy) == wire.TOO_FAST


def test_a_reset_starts_a_new_clock(url: str) -> None:
    picture = jpeg()
    with talk(url) as one:
        one.send(HELLO)
        one.recv(timeout=PATIENCE)
        for start in (5.0, 1e6, 3.0):
            one.send(json.dumps({"type": "sound-end"}))
            for index in range(5):
                one.send(message(wire.FRAME, start + index / 30, picture))
                answer = json.loads(one.recv(timeout=PATIENCE))
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
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", timeout=PATIENCE, context=trust) as answer:
            assert json.loads(answer.read())["status"] == "ok"
            assert answer.headers["strict-transport-security"] == "max-age=2592000"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        origin: Any = f"https://127.0.0.1:{port}"
        with connect(f"wss://127.0.0.1:{port}/stream", ssl=trust, origin=origin) as one:
            one.send(json.dumps({"type": "hello", "version": 1, "token": TOKEN}))
            assert json.loads(one.recv(timeout=PATIENCE))["type"] == "hello"
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
