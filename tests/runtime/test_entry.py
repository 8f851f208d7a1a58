"""A part of a long video: decoding begins at a key frame, and gives what reading everything gives."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.runtime import container, track
from avgn.runtime.arrays import Floats
from avgn.runtime.excerpt import Excerpt
from avgn.runtime.media import AudioBlock, MediaFile, VideoFrame
from tests.runtime.clips import rewrite

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg writes these containers")
pytestmark = needs_ffmpeg
SECONDS = 12
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-keyint_min", "25", "-sc_threshold", "0"]
B_FRAMES = [*X264, "-bf", "3", "-b_strategy", "0"]
AAC = ["-c:a", "aac"]
# how each is written, by name; the suffix is the last part of the name
KINDS: dict[str, list[str]] = {
    "closed.mp4": [*X264, *AAC],
    "b-frames.mp4": [*B_FRAMES, *AAC],
    "open.mkv": [*B_FRAMES, "-x264-params", "open-gop=1", "-c:a", "libopus"],
    "open.ts": [*B_FRAMES, "-x264-params", "open-gop=1", "-c:a", "mp2"],
    "late.ts": [*B_FRAMES, *AAC, "-output_ts_offset", "3600"],
    "refreshed.ts": [*X264, "-x264-params", "intra-refresh=1", *AAC],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25", "-c:a", "libvorbis"],
    "one-key.mp4": [*X264, "-g", "9999", "-keyint_min", "9999", *AAC],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-bf", "2", "-g", "25", "-c:a", "mp2"],
    "pcm.mov": ["-c:v", "mjpeg", "-c:a", "pcm_s16le"],
    "mp3.avi": ["-c:v", "mpeg4", "-bf", "2", "-g", "25", "-c:a", "libmp3lame"],
    "fragments.mp4": [*B_FRAMES, *AAC, "-movflags", "frag_keyframe+empty_moov"],
}
# how many pictures are decoded for a part after 10 seconds: at most, 45 from the key frame before it on
DECODED = {"one-key.mp4": 300, "refreshed.ts": 90}


def write(path: Path, options: list[str]) -> Path:
    source = f"testsrc2=s=96x64:r=25:d={SECONDS}"
    # a sound that is another at every moment
    sound = f"aevalsrc=0.4*sin(2*PI*(200+40*t)*t):d={SECONDS}:s=48000"
    inputs = ["-f", "lavfi", "-i", source, "-f", "lavfi", "-i", sound, "-pix_fmt", "yuv420p"]
    subprocess.run(["ffmpeg", "-v", "error", *inputs, *options, str(path)], check=True, timeout=120)
    return path


@pytest.fixture(scope="module", params=list(KINDS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MediaFile:
    return MediaFile(write(tmp_path_factory.mktemp("entry") / request.param, KINDS[request.param]))


@pytest.fixture(scope="module")
def pictures(whole: MediaFile) -> list[VideoFrame]:
    return list(whole.video())


@pytest.fixture(scope="module")
def sound(whole: MediaFile) -> list[AudioBlock]:
    return list(whole.audio())


def samples(blocks: list[AudioBlock], first: float, last: float) -> Floats:
    """The first channel between two times, by the blocks' own times, [T]."""
    rate = blocks[0].rate
    out = np.full(round((last - first) * rate), np.nan, np.float32)
    for block in blocks:
        at = round((block.time - first) * rate)
        kept = block.samples[max(0, -at) : max(0, len(out) - at), 0]
        out[max(0, at) : max(0, at) + len(kept)] = kept
    return out


@pytest.mark.parametrize("start", [1.0, 7.99, 8.0, 10.7])
def test_a_part_is_what_it_is_in_the_whole(
    whole: MediaFile, pictures: list[VideoFrame], sound: list[AudioBlock], start: float
) -> None:
    part = Excerpt(whole.path, None, start=start, duration=1.0)
    expected = [frame for frame in pictures if start - 1e-6 <= frame.time < start + 1]
    found = list(part.video())
    assert [frame.time for frame in found] == [frame.time for frame in expected] and len(found) >= 24
    for one, other in zip(found, expected, strict=True):
        # refreshed pictures are recovered but for a few steps of grey
        assert np.abs(one.rgb.astype(int) - other.rgb).max() <= (0 if "refreshed" not in part.path.name else 16)
    heard = list(part.audio())
    assert abs(heard[0].time - max(0.0, start - 4.0)) < 0.1
    ours, theirs = (samples(blocks, max(0.1, start - 3.9), start + 1) for blocks in (heard, sound))
    assert np.nanmax(np.abs(ours - theirs)) < 2e-3 and np.array_equal(np.isnan(ours), np.isnan(theirs))
    assert part.corrupt_frames == part.corrupt_audio == 0


def test_what_lies_before_the_key_frame_is_not_decoded(whole: MediaFile, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Excerpt(whole.path, None, start=10.5, duration=0.5)
    decoded = []
    really = container.decode_frames

    def counted(*arguments: Any) -> Iterator[Any]:
        for frame in really(*arguments):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(track, "decode_frames", counted)
    assert len(list(part.video())) in (12, 13)
    assert len(decoded) <= DECODED.get(whole.path.name, 45)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_no_part_begins_where_pictures_come_too_late(tmp_path: Path, suffix: str) -> None:
    """Pictures that are refreshed piece by piece: after the place that counts as a key, two thirds of a second have
    none."""
    refreshed = ["-c:v", "libx264", "-sc_threshold", "0", "-x264-params", "intra-refresh=1:keyint=40:bframes=0"]
    path = write(tmp_path / f"slow.{suffix}", [*refreshed, *AAC])
    whole = [frame.time for frame in MediaFile(path).video()]
    for tenth in range(30, 60, 2):
        start = tenth / 10
        found = [frame.time for frame in Excerpt(path, None, start=start, duration=0.3).video()]
        assert found == [time for time in whole if start - 1e-6 <= time < start + 0.3] and len(found) >= 7


def test_a_leap_before_the_part_counts_as_in_the_whole(tmp_path: Path) -> None:
    """Neither pictures nor sound for ten minutes: that time is left out, also where only what follows is asked for."""
    plain = write(tmp_path / "plain.mkv", [*X264, "-c:a", "flac"])
    path = rewrite(plain, tmp_path / "gap.mkv", lambda kind, at, n: at if at < 4 - 1e-6 else at + 600)
    pictures = list(MediaFile(path).video())
    assert pictures[-1].time < 30
    part = list(Excerpt(path, None, start=8.0, duration=2.0).video())
    expected = [frame for frame in pictures if 8 - 1e-6 <= frame.time < 10]
    assert [frame.time for frame in part] == [frame.time for frame in expected] and part
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(part, expected, strict=True))


def test_no_part_begins_where_the_clock_began_anew(tmp_path: Path) -> None:
    """The second half counts from zero again, so that the times of its key frames are those of others."""
    first = write(tmp_path / "first.ts", [*X264, *AAC])
    other = write(tmp_path / "other.ts", [*X264, "-vf", "negate", *AAC])
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + other.read_bytes())
    whole = list(MediaFile(path).video())
    assert whole[-1].time > 20
    part = list(Excerpt(path, None, start=11.6, duration=1.5).video())
    expected = [frame for frame in whole if 11.6 - 1e-6 <= frame.time < 13.1]
    assert [frame.time for frame in part] == [frame.time for frame in expected] and len(part) > 30
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(part, expected, strict=True))
