"""What an address holds, asked of real servers: files, playlists, cameras, radio; finished ones are read to the end."""

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

import numpy as np
import pytest

from avgn.runtime import open_media
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.media import AudioEnd, VideoFrame
from avgn.runtime.sources.address import is_url, local_path, look_at
from avgn.runtime.sources.devices import camera_name
from avgn.runtime.sources.finished import fetched
from avgn.runtime.sources.times import Times, WallClock
from avgn.runtime.sources.url import UrlSource
from tests.runtime.stamped import RATE, read_stamp

STAMPED = Path(__file__).with_name("stamped.py")
COUNT = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished video of 60 pictures, its index at the end, as encoders leave it."""
    path = tmp_path_factory.mktemp("clip") / "a clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=128x96:rate=20:duration=3", *TONE, "-shortest", path)
    return path


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


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def watch(source: UrlSource, until: Callable[[list[VideoFrame]], bool], seconds: float = 30.0) -> list[VideoFrame]:
    """The frames of a source until there are enough."""
    frames: list[VideoFrame] = []
    timer = threading.Timer(seconds, source.close)
    timer.start()
    for event in source.events():
        if isinstance(event, VideoFrame):
            frames.append(event)
            if until(frames):
                source.close()
    timer.cancel()
    return frames


def test_file_addresses_cameras_and_files_called_like_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_path("file:///tmp/a%20b.mp4") == "/tmp/a b.mp4" and local_path("file:/tmp/a.mp4") == "/tmp/a.mp4"
    assert local_path("file://localhost/tmp/a.mp4") == "/tmp/a.mp4" and local_path("a.mp4") == "a.mp4"
    odd = tmp_path / "50% #1?.mp4"
    odd.touch()
    assert local_path(f"file://{odd}") == str(odd) == local_path(odd.as_uri())
    with pytest.raises(InputError, match="another machine"):
        local_path("file://server/share/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert camera_name("0") == "camera:0" and camera_name("/dev/video2") == "camera:/dev/video2"
    assert camera_name("/dev/v4l/by-id/usb-cam") == "camera:/dev/v4l/by-id/usb-cam"
    assert camera_name("camera:1") == "camera:1" and camera_name("/dev/null") == "/dev/null"
    (tmp_path / "0").touch()
    assert camera_name("0") == "0" and not is_url("0")


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "udp", "rtp", "srt", "tcp", "rtmp", "RTSP"])
def test_what_is_no_web_address_is_live_unless_overruled(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:9/x"
    assert look_at(url).is_live and not look_at(url, False).is_live and look_at(url, True).is_live


def test_files_are_finished_and_endless_answers_live(clip: Path) -> None:
    for ranges in (True, False):
        with serve(clip.parent, ranges=ranges) as (base, _):
            found = look_at(f"{base}/a%20clip.mp4")
            assert not found.is_live and found.length == clip.stat().st_size
            assert look_at(f"{base}/a clip.mp4?token=secret").length == clip.stat().st_size
            assert "secret" not in str(look_at(f"{base}/a%20clip.mp4?token=secret"))
            assert look_at(f"{base}/a%20clip.mp4", True).is_live
            # a server that has nothing now may have it later
            assert look_at(f"{base}/none.mp4").is_live
    with serve(clip.parent, length=False) as (base, _):
        assert look_at(f"{base}/a%20clip.mp4").is_live and not look_at(f"{base}/a%20clip.mp4", False).is_live
    with serve(clip.parent, icy=True) as (base, _):
        assert look_at(f"{base}/a%20clip.mp4").is_live
    with serve(clip.parent, kind="multipart/x-mixed-replace; boundary=x") as (base, _):
        assert look_at(f"{base}/a%20clip.mp4").is_live
    assert look_at(f"http://127.0.0.1:{free_port()}/a.mp4").is_live
    with pytest.raises(InputError, match="is no network stream"):
        look_at("ftp://127.0.0.1/a.mp4")


MEDIA = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\na.ts\n"
MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n"
PLAYLISTS = {
    "live.m3u8": (MEDIA, True),
    "event.m3u8": (MEDIA + "#EXT-X-PLAYLIST-TYPE:EVENT\n", True),
    "ended event.m3u8": (MEDIA + "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-ENDLIST\n", False),
    "ended.m3u8": (MEDIA + "#EXT-X-ENDLIST\n", False),
    "crlf.m3u8": ((MEDIA + "#EXT-X-ENDLIST\n").replace("\n", "\r\n"), False),
    "vod.m3u8": (MEDIA + "#EXT-X-PLAYLIST-TYPE:VOD\n", False),
    "marked.m3u8": ("\ufeff" + MEDIA + "#EXT-X-ENDLIST\n", False),
    "named otherwise.txt": (MEDIA + "#EXT-X-ENDLIST\n", False),
    "master.m3u8": (MASTER + "ended.m3u8\n", False),
    "live master.m3u8": (MASTER + "live.m3u8\n", True),
    "lost master.m3u8": (MASTER + "none.m3u8\n", True),
    "endless master.m3u8": (MASTER + "endless%20master.m3u8\n", True),
    "radio.m3u": ("http://127.0.0.1:9/radio\n", True),
}


def test_playlists_that_grow_are_live_and_those_with_an_end_are_not(tmp_path: Path) -> None:
    for name, (text, _) in PLAYLISTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "a.mpd").write_text('<?xml version="1.0"?><MPD type="static"></MPD>')
    with serve(tmp_path) as (base, _):
        found = {name: look_at(f"{base}/{name}").is_live for name in PLAYLISTS}
        assert found == {name: is_live for name, (_, is_live) in PLAYLISTS.items()}
        try:
            assert not look_at(f"{base}/a.mpd").is_live
        except InputError as error:
            assert "DASH" in str(error) and "HLS" in str(error)


@pytest.mark.parametrize("facts", [{}, {"ranges": False}, {"cut": 5000}, {"password": "me:p@ss"}], ids=str)
def test_a_finished_file_is_the_same_through_a_server(facts: dict[str, Any], clip: Path) -> None:
    user = "me:p%40ss@" if "password" in facts else ""
    with serve(clip.parent, **facts) as (base, seen):
        url = base.replace("//", f"//{user}") + "/a%20clip.mp4"
        said: list[str] = []
        with fetched(look_at(url), said.append) as path:
            assert path.read_bytes() == clip.read_bytes() and path.name == "a_clip.mp4"
        assert not path.exists() and not path.parent.exists()
    assert "is finished" in said[0] and "p%40ss" not in said[0]
    if "cut" in facts:
        # it goes on where it was broken off
        assert seen[-1].startswith("bytes=") and seen[-1] != "bytes=0-"


def test_a_file_that_breaks_off_for_good_is_a_failure(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avgn.runtime.sources.finished.PAUSE", 0.01)
    with serve(clip.parent) as (base, _):
        address = look_at(f"{base}/a%20clip.mp4")
    with pytest.raises(FailureError, match="broke off after 0 of"), fetched(address):
        pass
    huge = look_at("udp://127.0.0.1:9", False)
    object.__setattr__(huge, "length", 1 << 60)
    with pytest.raises(InputError, match="no room"), fetched(huge):
        pass


def times_of(path: Path) -> tuple[list[float], int]:
    media = open_media(path)
    times = [frame.time for frame in media.video()]
    return [time - times[0] for time in times], sum(len(block.samples) for block in media.audio())


def test_a_playlist_with_an_end_is_read_whole(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", clip, "-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_playlist_type", "vod", tmp_path / "a.m3u8")
    with serve(tmp_path) as (base, _), fetched(look_at(f"{base}/a.m3u8")) as path:
        times, samples = times_of(path)
    truth, heard = times_of(clip)
    assert len(times) == len(truth) == COUNT
    np.testing.assert_allclose(times, truth, atol=0.002)
    assert abs(samples - heard) <= 2048


def test_another_address_can_be_read_to_its_end(clip: Path) -> None:
    port = free_port()
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(clip),
        "-c",
        "copy",
        "-f",
        "mpegts",
        f"tcp://127.0.0.1:{port}?listen=1",
    ]
    sender = subprocess.Popen(command)
    try:
        time.sleep(1.0)
        with fetched(look_at(f"tcp://127.0.0.1:{port}", False)) as path:
            times, _ = times_of(path)
    finally:
        sender.kill()
        sender.wait()
    np.testing.assert_allclose(times, times_of(clip)[0], atol=0.002)


def test_no_picture_after_connecting_is_lost(tmp_path: Path) -> None:
    """A camera with one key frame in ten seconds: all is seen, from the first picture on."""
    port = free_port()
    with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 25, 250):
        time.sleep(1.0)
        frames = watch(UrlSource(f"tcp://127.0.0.1:{port}"), lambda seen: len(seen) >= 50)
    numbers = [read_stamp(frame.rgb)[0] for frame in frames]
    assert numbers == list(range(50))
    times = np.array([frame.time for frame in frames])
    np.testing.assert_allclose(times - times[0], np.arange(50) / 25, atol=0.001)


def came(frames: list[VideoFrame]) -> float:
    """Seconds from the arrival of the first to that of the last; a busy machine sends late."""
    first, last = frames[0].captured, frames[-1].captured
    assert first is not None and last is not None
    return last - first


@pytest.mark.parametrize("kind", ["mjpeg", "h264"])
def test_streams_without_timestamps_run_as_fast_as_they_come(kind: str) -> None:
    port = free_port()
    with stamped(port, kind, 10, 10):
        wait_for(port)
        assert look_at(f"http://127.0.0.1:{port}/").is_live
        begin = time.monotonic()
        frames = watch(UrlSource(f"http://127.0.0.1:{port}/"), lambda seen: time.monotonic() - begin > 6)
    numbers = [read_stamp(frame.rgb)[0] for frame in frames]
    assert numbers == list(range(len(numbers))) and len(numbers) > 30
    late = frames[len(frames) // 2 :]
    assert late[-1].time - late[0].time == pytest.approx(came(late), rel=0.05)
    assert all(b.time >= a.time for a, b in zip(frames, frames[1:], strict=False))


def test_a_stream_whose_clock_runs_at_another_speed(caplog: pytest.LogCaptureFixture) -> None:
    """It says 25 pictures a second and sends ten: once that is clear, the moments at which they come count."""
    port = free_port()
    with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 10, 10, 25):
        time.sleep(1.0)
        frames = watch(UrlSource(f"tcp://127.0.0.1:{port}"), lambda seen: len(seen) >= 80)
    assert caplog.text.count("does not keep time") == 1 and "jumped" not in caplog.text
    late = frames[50:]
    assert late[-1].time - late[0].time == pytest.approx(came(late), rel=0.05)


def test_a_stream_says_whether_it_has_sound() -> None:
    for tone in (False, True):
        port = free_port()
        with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 25, 12, 25, *(["tone"] if tone else [])):
            time.sleep(1.0)
            source = UrlSource(f"tcp://127.0.0.1:{port}")
            events, heard = [], 0
            for event in source.events():
                events.append(event)
                heard += hasattr(event, "rate")
                if sum(isinstance(event, VideoFrame) for event in events) >= 20:
                    source.close()
        assert source.has_sound is tone and (heard > 3) is tone
        assert any(isinstance(event, AudioEnd) for event in events) is not tone


@pytest.mark.parametrize("speed", [0.4, 0.8, 1.3, 2.5])
def test_a_clock_of_another_speed_ends_with_arrivals(speed: float, caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    times, found, came = Times(WallClock(lambda: now)), [], []
    for index in range(1000):
        now = 100 + index / 20
        found.append(times.picture(7 + index * speed / 20))
        came.append(now - 100)
    assert found == sorted(found)
    half = slice(500, None)
    np.testing.assert_allclose(np.diff(found[half]), np.diff(came[half]), atol=1e-9)
    assert caplog.text.count("does not keep time") == 1


def test_a_network_that_stands_still_and_catches_up_is_believed() -> None:
    """Three seconds of nothing, then all of it at once: then times are those of the stream again."""
    now = 0.0
    times, found = Times(WallClock(lambda: now)), []
    for index in range(500):
        sent = index / 25
        now = 13.0 if 10 <= sent < 13 else sent
        found.append(times.picture(500 + sent))
    np.testing.assert_allclose(np.diff(found[380:]), 1 / 25, atol=1e-6)
    assert found == sorted(found) and found[-1] == pytest.approx(499 / 25, abs=0.05)


def test_what_was_read_while_connecting_keeps_its_times() -> None:
    """A burst of a second: the pictures keep their distances, and the wall clock is that of the newest."""
    now = 50.0
    wall = WallClock(lambda: now)
    times = Times(wall)
    found = [times.picture(index / 25) for index in range(25)]
    assert found == pytest.approx([index / 25 for index in range(25)])
    assert wall() == pytest.approx(24 / 25)
    now = 50.04
    assert times.picture(1.0) == pytest.approx(1.0)


def test_a_server_that_kept_seconds_for_newcomers_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    """Ten seconds at ten times their speed, which takes one, then as they come: each keeps its own time."""
    now = 50.0
    wall = WallClock(lambda: now)
    times, found = Times(wall), []
    for index in range(500):
        sent = index / 25
        now = 50 + (sent / 10 if sent < 10 else 1 + sent - 10)
        found.append(times.picture(7 + sent))
    np.testing.assert_allclose(found, np.arange(500) / 25, atol=1e-6)
    assert wall() == pytest.approx(found[-1], abs=0.1) and not caplog.text


def test_sound_without_timestamps_follows_its_arrival() -> None:
    now = 10.0
    times, found = Times(WallClock(lambda: now)), []
    rng = np.random.default_rng(0)
    for index in range(300):
        now = 10 + (index + 1) * 0.064 + rng.uniform(0, 0.03)
        found.append(times.sound(None, 1024, RATE))
    steps = np.diff(found[100:])
    assert steps.mean() == pytest.approx(0.064, rel=0.01) and steps.std() < 0.003
