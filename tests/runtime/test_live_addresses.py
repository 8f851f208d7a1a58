"""Streams of real senders: nothing after connecting is lost, and time runs as it does where they are sent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime.media import AudioEnd, VideoFrame
from avgn.runtime.sources.address import look_at
from avgn.runtime.sources.url import UrlSource
from tests.patience import tried_again
from tests.runtime.clips import write_clip
from tests.runtime.ffmpeg import first_picture, make_clip, needs_ffmpeg
from tests.runtime.servers import free_port, stamped, wait_for, watch
from tests.runtime.stamped import read_stamp
from tests.runtime.test_orientation import SCENE, stored_as, turn


@tried_again
def test_no_picture_after_connecting_is_lost(tmp_path: Path) -> None:
    """A camera with one key frame in ten seconds: all is seen, from the first picture on."""
    port = free_port()
    with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 25, 250):
        wait_for(port)
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
@tried_again
def test_streams_without_timestamps_run_as_fast_as_they_come(kind: str) -> None:
    port = free_port()
    with stamped(port, kind, 10, 10):
        wait_for(port)
        assert look_at(f"http://127.0.0.1:{port}/").is_live
        frames = watch(UrlSource(f"http://127.0.0.1:{port}/"), lambda seen: len(seen) >= 50)
    numbers = [read_stamp(frame.rgb)[0] for frame in frames]
    assert numbers == list(range(50))
    late = frames[len(frames) // 2 :]
    assert late[-1].time - late[0].time == pytest.approx(came(late), rel=0.05)
    assert all(b.time >= a.time for a, b in zip(frames, frames[1:], strict=False))


@tried_again
def test_a_stream_whose_clock_runs_at_another_speed(caplog: pytest.LogCaptureFixture) -> None:
    """It says 25 pictures a second and sends ten: once that is clear, the moments at which they come count."""
    port = free_port()
    caplog.clear()
    with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 10, 10, 25):
        wait_for(port)
        frames = watch(UrlSource(f"tcp://127.0.0.1:{port}"), lambda seen: len(seen) >= 80)
    assert caplog.text.count("does not keep time") == 1 and "jumped" not in caplog.text
    late = frames[50:]
    assert late[-1].time - late[0].time == pytest.approx(came(late), rel=0.05)


def test_a_stream_says_whether_it_has_sound() -> None:
    for tone in (False, True):
        port = free_port()
        with stamped(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", 25, 12, 25, *(["tone"] if tone else [])):
            wait_for(port)
            source = UrlSource(f"tcp://127.0.0.1:{port}")
            events, heard = [], 0
            for event in source.events():
                events.append(event)
                heard += hasattr(event, "rate")
                if sum(isinstance(event, VideoFrame) for event in events) >= 20:
                    source.close()
        assert source.has_audio is tone and (heard > 3) is tone
        assert any(isinstance(event, AudioEnd) for event in events) is not tone


MATRICES = {"left": (0, -1, 1, 0), "mirrored": (-1, 0, 0, 1), "mirrored-transposed": (0, -1, -1, 0)}
FRAGMENTS = ("-c", "copy", "-movflags", "empty_moov+frag_keyframe", "-f", "mp4")


@contextmanager
def sent(clip: Path, *options: str) -> Iterator[str]:
    """The address of a clip that ffmpeg sends at its own pace."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    sender = subprocess.Popen(["ffmpeg", "-v", "error", "-re", "-i", str(clip), *options, f"{address}?listen=1"])
    try:
        wait_for(port)
        yield address
    finally:
        sender.kill()
        sender.wait()


@needs_ffmpeg
@pytest.mark.parametrize("name", MATRICES)
def test_a_stream_of_a_turned_camera_is_upright(tmp_path: Path, name: str) -> None:
    upright = SCENE.frame(180, 240)
    frames = [stored_as(upright, MATRICES[name])] * 60
    clip = write_clip(tmp_path / "c.mp4", frames, [n / 30 for n in range(60)], SCENE.sound(2.0, 44100))
    with sent(turn(clip, MATRICES[name]), *FRAGMENTS) as address:
        seen = watch(UrlSource(address), lambda seen: len(seen) >= 20)
    assert all(np.abs(frame.rgb.astype(int) - upright).mean() < 4 for frame in seen)


@needs_ffmpeg
@pytest.mark.parametrize(("aspect", "shown"), [("4/3", (213, 120)), ("8/9", (160, 135)), ("2/1", (320, 120))])
def test_a_stream_of_pixels_that_are_not_square_has_its_shape(
    tmp_path: Path, aspect: str, shown: tuple[int, int]
) -> None:
    clip = make_clip(tmp_path / "c.ts", "-vf", f"setsar={aspect}", "-c:a", "aac", seconds=2.0)
    expected = first_picture(clip, *shown, "-vf", "scale={}:{}:flags=bilinear,setsar=1".format(*shown))
    with sent(clip, "-c", "copy", "-f", "mpegts") as address:
        first = watch(UrlSource(address), lambda seen: len(seen) >= 5)[0].rgb
    assert first.shape == (shown[1], shown[0], 3)
    assert np.abs(first.astype(int) - expected).mean() < 4
