"""What an address may lead to: its own host, and nothing of this machine; over TLS, a server that can be verified."""

from __future__ import annotations

import functools
import http.server
import io
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avgn.runtime import open_media
from avgn.runtime.errors import InputError
from avgn.runtime.media import VideoFrame
from avgn.runtime.sources.address import look_at
from avgn.runtime.sources.aes import Decrypted, decrypt_blocks, expand
from avgn.runtime.sources.finished import fetched, gathered
from avgn.runtime.sources.opening import open_address
from avgn.runtime.sources.url import UrlSource
from avgn.runtime.sources.web import Trust
from tests.hostile.attacks import HLS, SDP
from tests.runtime.servers import TONE, ffmpeg

FOLLOW = Trust(follow=True)
TIMES = (10.0, 10.0)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server; /away/HOST/PATH sends to another host."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """A web server on all of this machine's names; yields its port and what it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (Quiet,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video in segments of a second, plain and encrypted."""
    found = tmp_path_factory.mktemp("hls")
    whole = found / "whole.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=3", *TONE, "-g", 10, "-shortest", whole)
    segments = ("-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_playlist_type", "vod")
    ffmpeg("-i", whole, *segments, found / "a.m3u8")
    (found / "key").write_bytes(bytes(range(16)))
    (found / "keys").write_text(f"key\n{found / 'key'}\n")
    ffmpeg("-i", whole, *segments, "-hls_key_info_file", found / "keys", found / "e.m3u8")
    ffmpeg("-i", whole, *segments, "-hls_flags", "single_file", found / "r.m3u8")
    return found


def count(url: str, trust: Trust | None = None) -> int:
    """How many pictures an address has."""
    with open_address(url, trust or Trust(), timeout=TIMES, options={}) as container:
        return sum(1 for _ in container.decode(container.streams.video[0]))


@pytest.mark.parametrize("name", ["a.m3u8", "e.m3u8", "r.m3u8", "whole.ts"])
def test_what_lies_on_the_same_host_is_read_as_before(name: str, folder: Path) -> None:
    with serve(folder) as (port, _):
        assert count(f"http://127.0.0.1:{port}/{name}") == 30
        # the same host by a redirect
        assert count(f"http://127.0.0.1:{port}/to//{name}") == 30


NAMED = {
    "another host": ("http://localhost:{port}/a0.ts", "leads to another host, 'localhost'", True),
    "another host without its scheme": ("//localhost:{port}/a0.ts", "leads to another host, 'localhost'", True),
    "another host by a redirect": ("/to/http://localhost:{port}/a0.ts", "leads to another host, 'localhost'", True),
    "a file": ("file://{folder}/a0.ts", "no web address", False),
    "a file by a redirect": ("/to/file://{folder}/a0.ts", "no web address", False),
    "a part of a file": ("subfile,,start,0,end,0,,:{folder}/a0.ts", "", False),
    "several files": ("concat:{folder}/a0.ts|{folder}/a1.ts", "", False),
    "data": ("data:video/mp2t;base64,AAAA", "", False),
    "a stream": ("tcp://127.0.0.1:{port}", "", False),
}


@pytest.mark.parametrize("what", NAMED)
def test_a_playlist_leads_nowhere_else(what: str, folder: Path, tmp_path: Path) -> None:
    line, said, by_follow = NAMED[what]
    with serve(folder) as (other, asked), serve(tmp_path) as (port, _):
        (tmp_path / "p.m3u8").write_text(HLS.format(line.format(port=other, folder=folder)))
        url = f"http://127.0.0.1:{port}/p.m3u8"
        with pytest.raises(Exception, match=said):
            count(url)
        assert asked == []
        if by_follow:
            assert count(url, FOLLOW) == 10 and asked
        else:
            with pytest.raises(Exception, match=said):
                count(url, FOLLOW)
            assert asked == []


def test_an_address_itself_leads_nowhere_else(folder: Path) -> None:
    with serve(folder) as (other, asked), serve(folder) as (port, _):
        url = f"http://127.0.0.1:{port}/to/http://localhost:{other}/whole.ts"
        for look in (lambda: look_at(url), lambda: count(url)):
            with pytest.raises(InputError, match="pass --follow if you trust it"):
                look()
        assert asked == []
        with fetched(look_at(url, trust=FOLLOW)) as path:
            assert path.read_bytes() == (folder / "whole.ts").read_bytes()
        with pytest.raises(InputError, match="another host"):
            list(UrlSource(url).events())
        events = UrlSource(url, trust=FOLLOW).events()
        assert any(isinstance(event, VideoFrame) for event in events)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile a0.ts\n", SDP], ids=["script", "session"])
def test_scripts_at_an_address_are_not_followed(text: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text(text)
    (tmp_path / "a0.ts").write_bytes((folder / "a0.ts").read_bytes())
    with serve(tmp_path) as (port, asked):
        with pytest.raises(Exception, match=r"nvalid|Protocol|permitted"):
            count(f"http://127.0.0.1:{port}/v.mp4", FOLLOW)
        assert "/a0.ts" not in asked


def test_a_certificate_is_verified_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serve(folder, context) as (port, asked):
        url = f"https://127.0.0.1:{port}/a.m3u8"
        for look in (lambda: look_at(url), lambda: count(url)):
            with pytest.raises(InputError, match=r"can't be verified \(self.signed certificate\): pass --insecure"):
                look()
        assert asked == []
        assert not look_at(url, trust=Trust(insecure=True)).is_live
        assert count(url, Trust(insecure=True)) == 30


def test_a_local_playlist_is_followed_when_asked(folder: Path) -> None:
    with pytest.raises(InputError, match="use avgn localize --follow if you know who wrote it"):
        open_media(folder / "a.m3u8")
    for name in ("a.m3u8", "e.m3u8"):
        with gathered(folder / name) as path:
            assert sum(1 for _ in open_media(path).video()) == 30
        assert not path.exists()
    (folder / "far.m3u8").write_text(HLS.format("http://127.0.0.1:9/a.ts"))
    with pytest.raises(InputError), gathered(folder / "far.m3u8"):
        pass


def test_decryption_is_that_of_openssl() -> None:
    import numpy as np

    # FIPS 197, appendix C.1
    block = np.frombuffer(bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a"), np.uint8)[None]
    assert decrypt_blocks(block, expand(bytes(range(16)))).tobytes().hex() == "00112233445566778899aabbccddeeff"
    rng = np.random.default_rng(0)
    for length in (0, 1, 15, 16, 17, 65536, 70_001):
        key, iv, data = rng.bytes(16).hex(), rng.bytes(16).hex(), rng.bytes(length)
        command = ["openssl", "enc", "-aes-128-cbc", "-K", key, "-iv", iv]
        coded = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout
        for size in (1 << 20, 1000):
            file = Decrypted(io.BytesIO(coded), key, iv)
            assert b"".join(iter(functools.partial(file.read, size), b"")) == data
    for key in ("00", "zz" * 16):
        with pytest.raises(ValueError, match=r"16 bytes|hexadecimal"):
            Decrypted(io.BytesIO(), key, "00" * 16)
