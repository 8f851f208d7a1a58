"""Servers that stall, drip, break off and begin anew: what came is kept, nothing waits for ever, one sentence says
why."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.runtime import open_media
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.sources import address, finished
from avgn.runtime.sources.address import look_at
from avgn.runtime.sources.finished import fetched, gathered
from avgn.runtime.sources.web import Web
from tests.runtime.servers import ffmpeg, free_port, serve, wait_for

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds with B-frames."""
    path = tmp_path_factory.mktemp("rough") / "a.mp4"
    source = ("-f", "lavfi", "-i", "testsrc=s=96x64:r=25:d=3", "-f", "lavfi", "-i", "sine=440:duration=3")
    ffmpeg(*source, "-c:v", "libx264", "-g", 25, "-c:a", "aac", path)
    return path


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A web server that answers so, several visitors at a time."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            try:
                answer(self)
            except OSError:
                return

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_a_server_gave_before_it_stalled_is_kept(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked, over = clip.read_bytes(), list[str](), threading.Event()

    def half_and_stall(visit: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(visit.headers.get("Range", ""))
        start = int(asked[-1].removeprefix("bytes=").partition("-")[0] or 0)
        visit.send_response(206 if start else 200)
        visit.send_header("Content-Length", str(len(data) - start))
        visit.end_headers()
        visit.wfile.write(data[start : start + len(data) // 2 + 1])
        visit.wfile.flush()
        over.wait(60)

    monkeypatch.setattr(address, "ASK_TIMEOUT", 0.5)
    monkeypatch.setattr(finished, "PAUSE", 0.01)
    with answering(half_and_stall) as base:
        with fetched(look_at(f"{base}/a.mp4")) as path:
            assert path.read_bytes() == data
        over.set()
    # asked once to see what it is
    assert asked == ["", "", f"bytes={len(data) // 2 + 1}-"]


def test_the_head_of_an_answer_has_an_end() -> None:
    over = threading.Event()

    def drip(visit: http.server.BaseHTTPRequestHandler) -> None:
        visit.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not over.wait(0.05):
            visit.wfile.write(b"x")

    # a server that never ends is ended by the test
    limit = threading.Timer(30.0, over.set)
    limit.start()
    with answering(drip) as base:
        with pytest.raises(TimeoutError):
            Web(timeout=0.3).get(f"{base}/a.mp4", {})
        assert not over.is_set()
        over.set()
    limit.cancel()


@pytest.mark.parametrize("suffix", ["mkv", "flv", "ts", "mp4"])
def test_a_file_of_unknown_length_stays_what_it_is(suffix: str, clip: Path, tmp_path: Path) -> None:
    codecs = ("-c:v", "flv1", "-c:a", "libmp3lame", "-ar", 44100) if suffix == "flv" else ("-c", "copy")
    ffmpeg("-i", clip, *codecs, tmp_path / f"a.{suffix}")
    with serve(tmp_path, length=False) as (base, _), fetched(look_at(f"{base}/a.{suffix}", False)) as path:
        assert path.read_bytes() == (tmp_path / f"a.{suffix}").read_bytes()


OLD_CODECS = {
    "flv-flv1": "-c:v flv1 -c:a libmp3lame -ar 44100 -f flv",
    "flv-nellymoser": "-c:v flv1 -c:a nellymoser -ac 1 -ar 44100 -f flv",
    "asf-wma": "-c:v wmv2 -c:a wmav2 -f asf",
    "avi-msmpeg4": "-c:v msmpeg4 -c:a adpcm_ms -f avi",
}


@pytest.mark.parametrize("name", OLD_CODECS)
def test_what_matroska_has_no_place_for_is_taken_from_a_socket(name: str, clip: Path) -> None:
    port = free_port()
    command = ["ffmpeg", "-v", "quiet", "-i", str(clip), *OLD_CODECS[name].split()]
    sender = subprocess.Popen([*command, f"tcp://127.0.0.1:{port}?listen=1"])
    try:
        wait_for(port)
        with fetched(look_at(f"tcp://127.0.0.1:{port}", False)) as path:
            media = open_media(path)
            times = [frame.time for frame in media.video()]
            heard = sum(len(block.samples) / block.rate for block in media.audio())
    finally:
        sender.kill()
        sender.wait()
    truth = [frame.time for frame in open_media(clip).video()]
    np.testing.assert_allclose(np.diff(times), np.diff(truth), atol=0.002)
    assert heard == pytest.approx(truth[-1] - truth[0], abs=0.2) and not media.warnings()


def test_pictures_whose_decoding_times_are_not_said(clip: Path) -> None:
    port = free_port()
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-c", "copy", "-f", "matroska"]
    sender = subprocess.Popen([*command, f"tcp://127.0.0.1:{port}?listen=1"])
    try:
        wait_for(port)
        with fetched(look_at(f"tcp://127.0.0.1:{port}", False)) as path:
            times = [frame.time for frame in open_media(path).video()]
    finally:
        sender.kill()
        sender.wait()
    truth = [frame.time for frame in open_media(clip).video()]
    np.testing.assert_allclose(np.diff(times), np.diff(truth), atol=0.002)


def test_a_playlist_whose_clock_begins_anew_goes_on(clip: Path, tmp_path: Path) -> None:
    """As after an advertisement: the first part once more."""
    for name, start in (("a", 0), ("b", 1)):
        ffmpeg("-ss", start, "-i", clip, "-t", 1, "-c:v", "libx264", "-c:a", "aac", tmp_path / f"{name}.ts")
    parts = "\n#EXT-X-DISCONTINUITY\n".join(f"#EXTINF:1,\n{name}.ts" for name in "aba")
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n"
    (tmp_path / "p.m3u8").write_text(f"{head}{parts}\n#EXT-X-ENDLIST\n")
    with gathered(tmp_path / "p.m3u8") as path:
        media = open_media(path)
        times = [frame.time for frame in media.video()]
        blocks = list(media.audio())
        assert media.warnings() == []
    assert len(times) == 75 and all(0.03 < after - before < 0.15 for before, after in pairwise(times))
    heard = sum(len(block.samples) / block.rate for block in blocks)
    assert blocks[-1].time + len(blocks[-1].samples) / blocks[-1].rate == pytest.approx(heard, abs=0.15)


def missing_parts(clip: Path, folder: Path) -> Answer:
    lines = "\n".join(f"#EXTINF:1,\nnone{number}.ts" for number in range(5))
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-PLAYLIST-TYPE:VOD\n{lines}\n#EXT-X-ENDLIST\n".encode()

    def answer(visit: http.server.BaseHTTPRequestHandler) -> None:
        found = visit.path.endswith(".m3u8")
        visit.send_response(200 if found else 404)
        visit.send_header("Content-Length", str(len(text) if found else 0))
        visit.end_headers()
        visit.wfile.write(text if found else b"")

    return answer


def broken_chunks(clip: Path, folder: Path) -> Answer:
    def answer(visit: http.server.BaseHTTPRequestHandler) -> None:
        visit.send_response(200)
        visit.send_header("Content-Type", "multipart/x-mixed-replace; boundary=x")
        visit.send_header("Transfer-Encoding", "chunked")
        visit.end_headers()
        visit.wfile.write(b"zzzz\r\n" + clip.read_bytes())

    return answer


@pytest.mark.parametrize("kind", [missing_parts, broken_chunks])
def test_several_errors_of_one_connection_are_one_sentence(
    kind: Callable[[Path, Path], Answer], clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        answering(kind(clip, tmp_path)) as base,
        pytest.raises(FailureError, match="can't be fetched"),
        fetched(look_at(f"{base}/p.m3u8", False)),
    ):
        pass
    # PyAV prints the traceback of an error that it drops
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:abc/x", "is no address"),
        ("http://user:word@127.0.0.1:99999/x", "is no address"),
        ("rtsp://[::1/x", "is no address"),
        ("http:///x", "names no host"),
        ("rtmp://host:0/x", "names no port"),
        ("rtsp://user:wo/word@host/x", "ends a host"),
        ("http://user:wo#word@host/x", "ends a host"),
        ("http://user:wo?word@host/x", "ends a host"),
    ],
)
def test_what_can_be_no_address_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        look_at(url)
    assert ":wo" not in str(error.value) and "user:" not in str(error.value)


@pytest.mark.parametrize("url", ["udp://@:5000", "rtp://:5004", "srt://:9000?mode=listener", "rtsp://u:p@[::1]:554/x"])
def test_addresses_at_which_this_machine_listens(url: str) -> None:
    assert look_at(url).is_live
