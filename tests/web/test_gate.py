"""Who comes in: hosts, tokens and their guesses, headers on every answer, secrets that are said nowhere."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from avgn.runtime import InputError, Localizer
from avgn.runtime.web import wire
from avgn.runtime.web.gate import HEADERS, Heading
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.pace import Pace
from avgn.runtime.web.seldom import Seldom
from avgn.runtime.web.server import serve
from avgn.runtime.web.token import check_token, choose_token, is_guessable
from tests.patience import PATIENCE, Clock, tried_again
from tests.web.browser import serving
from tests.web.visits import TOKEN, closed, get, talk


def raw(url: str, request: bytes, seconds: float = PATIENCE) -> bytes:
    """What a server answers to bytes."""
    port = int(url.rstrip("/").rsplit(":", 1)[1])
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as one:
        one.sendall(request)
        while True:
            piece = one.recv(65536)
            found += piece
            head, end, body = found.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not piece or (end and length and len(body) >= int(length[0].split(b":")[1])):
                return found


def upgrade(host: bytes, key: bytes = b"AAAAAAAAAAAAAAAAAAAAAA==", path: bytes = b"/stream") -> bytes:
    head = b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"


REQUESTS = {
    "page": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    "bracket": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    "spaces": (b"GET / HTTP/1.1\r\nHost: local host\r\n\r\n", 400),
    "port": (b"GET / HTTP/1.1\r\nHost: localhost:port\r\n\r\n", 400),
    "user": (b"GET / HTTP/1.1\r\nHost: a@localhost\r\n\r\n", 400),
    "empty": (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", 403),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "old": (b"GET / HTTP/1.0\r\n\r\n", 403),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    "foreign": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    "origin": (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[::1\r\n\r\n", 403),
    "zero": (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "up": (b"GET /../pyproject.toml HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "escaped up": (b"GET /..%2f..%2fpyproject.toml HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "long path": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "star": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "post": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
    "metrics": (b"DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "no request": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "long header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 40_000, 400),
    "range": (b"GET / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" + b"0-1," * 2000 + b"5-\r\n\r\n", 200),
    "socket": (upgrade(b"localhost")[:-2] + b"Sec-WebSocket-Protocol: a\r\n\r\n", 101),
    "socket's bracket": (upgrade(b"[::1"), 400),
    "socket's host": (upgrade(b"evil.example"), 403),
    "socket's key": (upgrade(b"localhost", key=b"short"), 400),
    "socket elsewhere": (upgrade(b"localhost", path=b"/"), 403),
    "socket's long header": (upgrade(b"localhost")[:-2] + b"x: " + b"a" * 9000 + b"\r\n\r\n", 400),
    "socket's many headers": (upgrade(b"localhost")[:-2] + b"x: a\r\n" * 500 + b"\r\n", 400),
    "socket's long path": (upgrade(b"localhost", path=b"/" + b"a" * 9000), 400),
    "socket's bytes": (upgrade(b"localhost")[:-2] + b"Sec-WebSocket-Protocol: \x80\xff\r\n\r\n", 400),
    "other upgrade": (upgrade(b"localhost").replace(b"Upgrade: websocket", b"Upgrade: h2c"), 404),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_answer_has_the_headers_and_none_is_a_failure(
    name: str, url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    request, status = REQUESTS[name]
    if name == "socket":
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as one:
            one.sendall(request)
            head = one.recv(65536)
    else:
        head = raw(url, request)
    lines = head.partition(b"\r\n\r\n")[0].lower().decode().split("\r\n")
    assert int(lines[0].split()[1]) == status, head[:300]
    names = [line.partition(":")[0] for line in lines[1:]]
    for header in HEADERS:
        assert names.count(header) == 1, (header, head)
    assert "Traceback" not in capfd.readouterr().err
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def test_headers_are_put_into_the_answers_of_libraries_once() -> None:
    heading = Heading(tls=True)
    once = heading.put_into(b"HTTP/1.1 400 Bad Request\r\nReferrer-Policy: origin\r\n\r\nbody: of words")
    assert once.count(b"max-age=2592000") == 1 and once.endswith(b"\r\n\r\nbody: of words")
    assert once.lower().count(b"referrer-policy") == 1
    assert b"strict-transport-security" not in Heading(tls=False).answer(400, "no")


def test_a_server_answers_by_its_own_address(tiny: Localizer) -> None:
    with serving(tiny, host="127.0.0.2") as address:
        assert address.startswith("http://127.0.0.2:") and get(address)[0] == 200
        assert get(address, Host="localhost")[0] == 200 and get(address, Host="evil.example")[0] == 403
        assert get(address, Host="127.0.0.2.evil.example")[0] == 403 and get(address, Host="[::1]:9")[0] == 200
        with talk(address, origin=address.rstrip("/")) as one:
            one.send(json.dumps({"type": "hello", "version": 1}))
            assert json.loads(one.recv(timeout=PATIENCE))["type"] == "hello"


@tried_again
def test_wrong_tokens_wait_for_each_other_and_are_logged(tiny: Localizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with serving(tiny, token=TOKEN, limits=Limits(token_delay=0.2)) as address, caplog.at_level(logging.WARNING):
        begin = time.monotonic()
        sockets = [talk(address) for _ in range(4)]
        for one in sockets:
            one.send(json.dumps({"type": "hello", "version": 1, "token": "secret-of-nobody"}))
        # who knows the token does not wait for those who don't
        with talk(address) as owner:
            owner.send(json.dumps({"type": "hello", "version": 1, "token": TOKEN}))
            assert json.loads(owner.recv(timeout=PATIENCE))["type"] == "hello"
            assert time.monotonic() - begin < 0.8
        assert get(address + "metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert [closed(one) for one in sockets] == [wire.NO_TOKEN] * 4
        assert get(address + "metrics", Authorization="Bearer secret-of-nobody")[0] == 401
        # five answers in a row
        assert time.monotonic() - begin >= 1.0
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "127.0.0.1 at /stream" in line] and len(said) <= 3
    assert not [line for line in said if "secret-of" in line or TOKEN in line]


def test_turns_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("avgn.runtime.web.pace.clock", clock)
    monkeypatch.setattr("avgn.runtime.web.seldom.clock", clock)
    pace = Pace(1.0, 2, 5.0)
    assert [round(pace.wait("a"), 1) for _ in range(9)] == [0, 0, 1, 2, 3, 4, 5, 5, 5] and pace.wait("b") == 0
    seldom = Seldom(pause=0.05)
    assert [seldom.count("x"), seldom.count("x"), seldom.count("x"), seldom.count("y")] == [1, 0, 0, 1]
    clock.now += 0.06
    assert seldom.count("x") == 3


@pytest.mark.parametrize(
    "token",
    [
        "aaaaaaaaaaaaaaaa",
        "abababababababab",
        "abcdefghijklmnop",
        "1234567890123456",
        "9876543210987654",
        "aaaaaaaabbbbbbbb",
        "passwordpassword",
        "password12345678",
        "qwertyuiop123456",
        "changemechangeme",
        "0000000000000001",
    ],
)
def test_tokens_that_anybody_guesses_are_refused_without_being_said(token: str) -> None:
    assert is_guessable(token)
    with pytest.raises(InputError, match="too easy to guess") as refused:
        check_token("127.0.0.1", True, token)
    assert token not in str(refused.value)


def test_tokens_that_machines_choose_are_taken() -> None:
    import random

    chance = random.Random(0)
    for _ in range(300):
        check_token("0.0.0.0", False, "".join(chance.choices("0123456789abcdef", k=32)))
        check_token(
            "0.0.0.0", False, "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl0123456789-_", k=16))
        )


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nanother line\n")
    monkeypatch.setenv("AVGN_TOKEN", "of-the-environment")
    assert choose_token(None, str(file)) == TOKEN
    # children don't inherit it
    assert "AVGN_TOKEN" not in os.environ
    monkeypatch.setenv("AVGN_TOKEN", "of-the-environment")
    assert choose_token(None, None) == "of-the-environment"
    assert choose_token("x" * 20, None) == "x" * 20 and choose_token(None, None) is None
    with pytest.raises(InputError, match="two places"):
        choose_token("a", str(file))
    file.write_text("\n\n")
    with pytest.raises(InputError, match="holds no token"):
        choose_token(None, str(file))
    with pytest.raises(InputError, match="can't be read"):
        choose_token(None, str(tmp_path))


def test_the_token_is_in_no_process_list_help_or_log(tmp_path: Path) -> None:
    environment = os.environ | {"AVGN_TOKEN": TOKEN}
    command = [sys.executable, "-m", "avgn", "serve"]
    shown = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and TOKEN not in shown.stdout + shown.stderr and "--token-file" in shown.stdout
    refused = subprocess.run(
        [*command, "tiny", "--token", TOKEN, "--port", "70000"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2 and TOKEN not in refused.stdout + refused.stderr
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux lets a process overwrite its arguments")
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, "tiny", "--token", TOKEN, "--port", "0"], stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 60
        while "http://" not in log.read_text():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert arguments[-5:-3] == [b"--token", b"*" * len(TOKEN)] and TOKEN not in log.read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert TOKEN not in log.read_text()


def test_a_weak_token_starts_no_server(tiny: Localizer) -> None:
    with pytest.raises(InputError, match="too easy to guess"):
        serve(tiny, port=0, token="a" * 16)
    with pytest.raises(InputError, match="at least 16 printable"):
        serve(tiny, port=0, token="ü" * 16)


def count_of(metrics: str, name: str) -> Any:
    return next((float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(name)), 0.0)


def test_who_leaves_is_no_error(url: str, caplog: pytest.LogCaptureFixture) -> None:
    from tests.web.visits import HELLO, await_sessions, jpeg, message

    picture = jpeg()
    for index in range(12):
        one = talk(url)
        one.send(HELLO)
        if index % 3:
            for at in range(10):
                one.send(message(wire.FRAME, at / 30, picture))
        if index % 2:
            # amid results, without a word
            one.socket.shutdown(socket.SHUT_RDWR)
        one.close()
    await_sessions(url, 0)
    time.sleep(0.3)
    # the client in this process has errors of its own
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert not [record for record in ours if record.levelno >= logging.WARNING]
    assert count_of(get(url + "metrics")[1].decode(), 'avgn_closed_total{code="1011"}') == 0
