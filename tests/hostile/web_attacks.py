"""What hostile visitors do to `avgn serve`, each kind as a function that goes on until its time is over.

python -m tests.hostile.web_attacks KIND,KIND... PORT TOKEN SECONDS ATTACKERS

They speak over bare sockets, so that no library of theirs keeps them from anything, and come again when they are thrown
out.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

HOST = "127.0.0.1"
MASK = b"\0\0\0\0"
TEXT, BINARY, PING = 1, 2, 9
PICTURE, SOUND = 1, 2
# between two connections of an attacker who was thrown out
PAUSE = 0.02


@functools.cache
def jpeg(width: int, height: int, *options: int) -> bytes:
    """A picture of coloured patches."""
    patches = np.random.default_rng(0).integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(patches, (width, height)), options)[1])


@functools.cache
def two_headers() -> bytes:
    """16x16 for whoever takes FF 00 for a segment, 32000x32000 for libjpeg, which skips it."""
    small, large = jpeg(16, 16), jpeg(16, 16)
    at = large.index(b"\xff\xc0") + 5
    large = large[:at] + struct.pack(">HH", 32000, 32000) + large[at + 4 :]
    frame = small[small.index(b"\xff\xc0") :][:19]
    return b"\xff\xd8\xff\x00" + struct.pack(">H", len(frame) + 2) + frame + large[2:]


@functools.cache
def many_scans(scans: int = 26_000, side: int = 1024) -> bytes:
    """A grey baseline picture whose only component is coded again and again, in scans of next to nothing."""
    grey = bytes(cv2.imencode(".jpg", np.full((side, side), 128, np.uint8))[1])
    scan = grey.index(b"\xff\xda")
    size = 2 + struct.unpack_from(">H", grey, scan + 2)[0]
    return grey[:scan] + grey[scan : scan + size] * scans + b"\xff\xd9"


def message(kind: int, at: float, body: bytes, rate: int = 0) -> bytes:
    """A binary message of the page's protocol."""
    return struct.pack("<B3xId", kind, rate, at) + body


def frame(opcode: int, body: bytes, final: bool = True) -> bytes:
    """A WebSocket frame as clients send it, with a mask that changes nothing."""
    size = len(body)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        length = bytes([0x80 | 127]) + struct.pack(">Q", size)
    return bytes([(0x80 if final else 0) | opcode]) + length + MASK + body


class Attack:
    """One attacker's tools; its time is over at `end` (monotonic)."""

    def __init__(self, port: int, token: str, end: float) -> None:
        self.port = port
        self.token = token
        self.end = end

    def lasts(self) -> bool:
        return time.monotonic() < self.end

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A connection; whatever ends it is fine."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=5) as found:
            yield found
        time.sleep(PAUSE)

    @contextlib.contextmanager
    def upgraded(self, token: str | None = None) -> Iterator[socket.socket]:
        """A WebSocket that said hello (without a token of its own: the right one), and has read the answer."""
        with self.connected() as found:
            key = base64.b64encode(os.urandom(16)).decode()
            head = f"GET /stream HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            found.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            found.recv(4096)
            hello = {"type": "hello", "version": 1, "token": self.token if token is None else token}
            found.sendall(frame(TEXT, json.dumps(hello).encode()))
            found.recv(4096)
            yield found

    def flood(self, pieces: list[bytes], rate: float, read: bool = True) -> None:
        """Send pieces in turn, `rate` of them a second."""
        with self.upgraded() as found:
            begin, sent = time.monotonic(), 0
            while self.lasts():
                found.sendall(pieces[sent % len(pieces)])
                sent += 1
                while read:
                    found.settimeout(0.0)
                    try:
                        if not found.recv(65536):
                            return
                    except BlockingIOError:
                        break
                    finally:
                        found.settimeout(5)
                time.sleep(max(0.0, begin + sent / rate - time.monotonic()))

    def pictures(self, picture: bytes, rate: float, read: bool = True) -> None:
        """Send one picture at the right times, `rate` a second."""
        with self.upgraded() as found:
            begin, sent = time.monotonic(), 0
            while self.lasts():
                found.sendall(frame(BINARY, message(PICTURE, time.monotonic(), picture)))
                sent += 1
                if read:
                    found.settimeout(0.0)
                    with contextlib.suppress(BlockingIOError):
                        if not found.recv(65536):
                            return
                    found.settimeout(5)
                time.sleep(max(0.0, begin + sent / rate - time.monotonic()))


def bombs(attack: Attack) -> None:
    attack.pictures(two_headers(), 5)


def scans(attack: Attack) -> None:
    attack.pictures(many_scans(), 1.5)


def progressive(attack: Attack) -> None:
    attack.pictures(jpeg(1024, 1024, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 30), 20)


def large(attack: Attack) -> None:
    attack.pictures(jpeg(1024, 1024, cv2.IMWRITE_JPEG_QUALITY, 20), 30)


def fast(attack: Attack) -> None:
    attack.pictures(jpeg(320, 240, cv2.IMWRITE_JPEG_QUALITY, 50), 140)


def unread(attack: Attack) -> None:
    attack.pictures(jpeg(64, 64), 60, read=False)


def sound(attack: Attack) -> None:
    rate = 192_000
    noise = np.random.default_rng(0).integers(-3000, 3000, rate // 4, np.int16).tobytes()
    with attack.upgraded() as found:
        begin, sent = time.monotonic(), 0
        while attack.lasts():
            found.sendall(frame(BINARY, message(SOUND, time.monotonic(), noise, rate)))
            sent += 1
            time.sleep(max(0.0, begin + sent / 7 - time.monotonic()))


def pings(attack: Attack) -> None:
    attack.flood([frame(PING, b"x" * 125) * 170], 100, read=False)


def small_pings(attack: Attack) -> None:
    attack.flood([frame(PING, b"") * 3600], 100)


def fragments(attack: Attack) -> None:
    attack.flood([frame(TEXT, b"", final=False) + frame(0, b"", final=False) * 3600], 100)


def resets(attack: Attack) -> None:
    reset = frame(TEXT, json.dumps({"type": "reset"}).encode())
    attack.flood([frame(BINARY, message(PICTURE, 1.0, jpeg(64, 64))) + reset], 60)


def alive(attack: Attack) -> None:
    """Ten tabs of each that say no more than that they are there."""
    with contextlib.ExitStack() as stack:
        tabs = [stack.enter_context(attack.upgraded()) for _ in range(10)]
        while attack.lasts():
            for tab in tabs:
                tab.sendall(frame(TEXT, b'{"type": "alive"}'))
            time.sleep(1.0)


def idle(attack: Attack) -> None:
    """Connections that say nothing, and sockets that don't say hello."""
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(attack.connected())
            found = stack.enter_context(attack.connected())
            found.sendall(
                b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
        time.sleep(max(0.0, min(8.0, attack.end - time.monotonic())))


def slow_header(attack: Attack) -> None:
    with attack.connected() as found:
        found.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        while attack.lasts():
            found.sendall(b"x-a: b\r\n")
            time.sleep(0.2)


def long_header(attack: Attack) -> None:
    with attack.connected() as found:
        found.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nx-long: ")
        for _ in range(200):
            found.sendall(b"a" * 2**20)


def pipelined(attack: Attack) -> None:
    """Requests without end whose answers nobody reads."""
    with attack.connected() as found:
        while attack.lasts():
            found.sendall(b"GET /app.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000)


def guesses(attack: Attack) -> None:
    with attack.upgraded(token=base64.b64encode(os.urandom(12)).decode()):
        pass
    with attack.connected() as found:
        found.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer x\r\n\r\n")
        found.recv(4096)


def malformed(attack: Attack) -> None:
    """Requests of which each is wrong in another way."""
    heads = (b"Host: [::1\r\n", b"Host: a b\r\n", b"", b"Host: a\r\nHost: b\r\n", b"Host: evil.example\r\n", b"\0\r\n")
    for head in heads:
        for path in (b"/", b"/%00", b"/" + b"a" * 5000, b"/..%2f..%2fetc/passwd", b"//", b"*"):
            with attack.connected() as found:
                found.sendall(b"GET " + path + b" HTTP/1.1\r\n" + head + b"\r\n")
                found.recv(4096)
            if not attack.lasts():
                return


KINDS: dict[str, Callable[[Attack], None]] = {
    work.__name__: work
    for work in (
        bombs,
        scans,
        progressive,
        large,
        fast,
        unread,
        sound,
        pings,
        small_pings,
        fragments,
        resets,
        alive,
        idle,
        slow_header,
        long_header,
        pipelined,
        guesses,
        malformed,
    )
}


def attack_with(kinds: list[str], port: int, token: str, seconds: float, attackers: int) -> None:
    """Let so many attackers of each kind loose for some seconds."""
    attack = Attack(port, token, time.monotonic() + seconds)

    def work(kind: str) -> None:
        while attack.lasts():
            # a server that hangs up amid a message is what attackers expect
            with contextlib.suppress(OSError, RuntimeError):
                KINDS[kind](attack)

    threads = [threading.Thread(target=work, args=(kind,), daemon=True) for kind in attackers * kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, attack.end + 1 - time.monotonic()))


if __name__ == "__main__":
    attack_with(sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))
