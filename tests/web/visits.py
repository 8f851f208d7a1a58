"""Visits to a server over real connections."""

from __future__ import annotations

import json
import struct
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import cv2
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from avgn.runtime.web import wire
from tests.patience import PATIENCE, until

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
    return connect(url.replace("http", "ws", 1) + "stream", open_timeout=PATIENCE, **options)


def closed(socket: ClientConnection, seconds: float = PATIENCE) -> int:
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
                assert json.loads(socket.recv(timeout=PATIENCE))["type"] == "hello"
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
        self.join(PATIENCE)
        assert self.failure is None, repr(self.failure)

    def wait(self, count: int) -> None:
        start = len(self.results)
        until(lambda: len(self.results) >= start + count, going_on=self.is_alive)


def get(address: str, **headers: str) -> tuple[int, bytes, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=PATIENCE) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def await_sessions(url: str, count: int, seconds: float = PATIENCE) -> None:
    """Wait until the server counts `count` visitors: a session ends a moment after its visitor has left."""
    deadline = time.monotonic() + seconds
    while (held := json.loads(get(url + "healthz")[1])["sessions"]) != count:
        assert time.monotonic() < deadline, f"{held} sessions, not {count}, after {seconds} s"
        time.sleep(0.02)
