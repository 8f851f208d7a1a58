"""What an address holds, asked of real servers: files, playlists, cameras, radio; finished ones are read to the end."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.runtime import open_media
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.sources.address import is_url, local_path, look_at
from avgn.runtime.sources.devices import camera_name
from avgn.runtime.sources.finished import fetched
from tests.runtime.servers import TONE, ffmpeg, free_port, serve, wait_for

COUNT = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished video of 60 pictures, its index at the end, as encoders leave it."""
    path = tmp_path_factory.mktemp("clip") / "a clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=128x96:rate=20:duration=3", *TONE, "-shortest", path)
    return path


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


def test_a_file_whose_length_nobody_says_is_read_when_asked(clip: Path) -> None:
    # its index lies at the end: as a stream it can't be read at all
    with serve(clip.parent, length=False) as (base, _), fetched(look_at(f"{base}/a%20clip.mp4", False)) as path:
        assert path.read_bytes() == clip.read_bytes()
    (clip.parent / "broken.ts").write_bytes(b"G" * 188 * 20)
    with (
        serve(clip.parent, length=False) as (base, _),
        pytest.raises(InputError, match="http.*/broken.ts (can't be opened|has no video)"),
        fetched(look_at(f"{base}/broken.ts", False)) as path,
    ):
        open_media(path)


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
        wait_for(port)
        with fetched(look_at(f"tcp://127.0.0.1:{port}", False)) as path:
            times, _ = times_of(path)
    finally:
        sender.kill()
        sender.wait()
    np.testing.assert_allclose(times, times_of(clip)[0], atol=0.002)
