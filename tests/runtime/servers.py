"""Servers, senders and viewers of real addresses."""

from __future__ import annotations

import base64
import functools
import http.server
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avgn.runtime.media import VideoFrame
from avgn.runtime.sources.url import UrlSource
from tests.patience import PATIENCE, until

STAMPED = Path(__file__).with_name("stamped.py")


TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3:sample_rate=16000", "-c:v", "libx264", "-c:a", "aac")


def ffmpeg(*arguments: object) -> None:
    command = ["ffmpeg", "-v", "error", "-y", *(str(part) for part in arguments)]
    subprocess.run(command, check=True, timeout=60)


class Files(http.server.SimpleHTTPRequestHandler):
    """Python's own file server; `ranges`: it gives parts; `cut`: bytes after which it breaks off a first answer."""

    ranges = True
    cut = 0
    length = True
    password = ""
    kind = ""
    icy = False
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Range", ""))
        given = self.headers.get("Authorization", "")
        if self.password and given != "Basic " + base64.b64encode(self.password.encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        asked = self.headers.get("Range", "")
        if self.ranges and asked.startswith("bytes="):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if self.icy:
            self.send_header("icy-name", "radio")
        self.send_header("Content-Type", self.kind or self.guess_type(str(path)))
        if self.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        whole = not self.cut or start or (self.cut and len(self.seen) > 3)
        try:
            self.wfile.write(data[start:] if whole else data[: self.cut])
        except OSError:
            # he left
            return
        self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path, **facts: Any) -> Iterator[tuple[str, list[str]]]:
    """A web server of one thread, so of one visitor at a time; yields its address and the ranges it was asked for."""
    seen: list[str] = []
    handler = type("Handler", (Files,), {**facts, "seen": seen})
    server = socketserver.TCPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def stamped(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    sender = subprocess.Popen(
        [sys.executable, str(STAMPED), *(str(part) for part in arguments)], stderr=subprocess.DEVNULL
    )
    try:
        yield sender
    finally:
        sender.kill()
        sender.wait()


def is_listened_at(port: int) -> bool:
    """Whether somebody listens at a port of TCP, without a visit; elsewhere than on Linux a second has to do."""
    if not Path("/proc/net/tcp").exists():
        time.sleep(1.0)
        return True
    listening = "0A"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        if any(row[3] == listening and int(row[1].rpartition(":")[2], 16) == port for row in rows):
            return True
    return False


def wait_for(port: int) -> None:
    """Wait until somebody listens at a port: a sender that takes one visitor must not be visited for that."""
    until(lambda: is_listened_at(port))


def watch(source: UrlSource, enough: Callable[[list[VideoFrame]], bool], seconds: float = PATIENCE) -> list[VideoFrame]:
    """The frames of a source until there are enough."""
    frames: list[VideoFrame] = []
    timer = threading.Timer(seconds, source.close)
    timer.start()
    for event in source.events():
        if isinstance(event, VideoFrame):
            frames.append(event)
            if enough(frames):
                source.close()
    timer.cancel()
    return frames
