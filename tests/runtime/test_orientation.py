"""Pictures are upright and have their shape; ffmpeg's own rotation is the second opinion."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from avgn.runtime import Localizer, localize_file, open_media
from avgn.runtime.orientation import shape_of
from tests.runtime.clips import Scene, read_video, write_clip
from tests.runtime.ffmpeg import ffmpeg, first_picture, make_clip, needs_ffmpeg

SCENE = Scene(seen={0: (0.25, 0.3), 1: (0.7, 0.6)}, heard=(0, 2))
# a, b, c, d of the display matrix: a point (x, y) is shown at (a x + c y, b x + d y)
EIGHT = {
    "upright": (1, 0, 0, 1),
    "left": (0, -1, 1, 0),
    "upside-down": (-1, 0, 0, -1),
    "right": (0, 1, -1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored-upside-down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "mirrored-transposed": (0, -1, -1, 0),
}


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the first track of an MP4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def stored_as(upright: npt.NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """What a camera stores so that the matrix shows it upright: every pixel (x, y) is at its place in the display."""
    a, b, c, d = matrix
    height, width = upright.shape[:2]
    size = (height, width) if a else (width, height)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    x, y = a * columns + c * rows, b * columns + d * rows
    return np.ascontiguousarray(upright[y - y.min(), x - x.min()])


@needs_ffmpeg
@pytest.mark.parametrize("name", EIGHT)
def test_all_eight_orientations(tmp_path: Path, localizer: Localizer, name: str) -> None:
    upright = SCENE.frame(180, 240)
    frames = [stored_as(upright, EIGHT[name])] * 20
    clip = write_clip(tmp_path / "c.mp4", frames, [n / 30 for n in range(20)], SCENE.sound(1.0, 44100))
    media = open_media(turn(clip, EIGHT[name]))
    assert (media.info.width, media.info.height) == (240, 180)
    assert media.info.mirrored == ("mirrored" in name or name == "transposed")
    rgb = next(media.video()).rgb
    assert np.abs(rgb.astype(int) - upright).mean() < 4
    assert np.abs(rgb.astype(int) - first_picture(clip, 240, 180)).mean() < 3
    result = list(localizer.stream(media))[10]
    assert result.sources[0].peak == pytest.approx((0.25, 0.3), abs=0.07)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("aspect", "shown"), [("4/3", (213, 120)), ("8/9", (160, 135)), ("1/1", (160, 120)), ("2/1", (320, 120))]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_that_are_not_square_keep_their_shape(
    tmp_path: Path, localizer: Localizer, aspect: str, shown: tuple[int, int], suffix: str
) -> None:
    clip = make_clip(tmp_path / f"c.{suffix}", "-vf", f"setsar={aspect}", "-c:a", "aac", seconds=1.0)
    media = open_media(clip)
    assert (media.info.width, media.info.height) == shown
    rgb = next(media.video()).rgb
    assert rgb.shape == (shown[1], shown[0], 3)
    scaled = first_picture(clip, *shown, "-vf", f"scale={shown[0]}:{shown[1]}:flags=bilinear")
    assert np.abs(rgb.astype(int) - scaled).mean() < 6
    localize_file(localizer, clip, output=tmp_path / "o.mp4")
    written = read_video(tmp_path / "o.mp4")[0][0]
    assert written.shape[1] / written.shape[0] == pytest.approx(shown[0] / shown[1], rel=0.01)


@needs_ffmpeg
def test_a_turned_picture_with_pixels_that_are_not_square(tmp_path: Path) -> None:
    clip = turn(make_clip(tmp_path / "c.mp4", "-vf", "setsar=2/1", "-c:a", "aac", seconds=1.0), EIGHT["right"])
    media = open_media(clip)
    assert (media.info.width, media.info.height) == (120, 320)
    assert next(media.video()).rgb.shape == (320, 120, 3)


def test_unbelievable_pixels_change_nothing() -> None:
    assert shape_of(640, 480, 1 / 65535) == shape_of(640, 480, 65535.0) == (640, 480)
    assert shape_of(1440, 1080, 4 / 3) == (1920, 1080) and shape_of(720, 480, 8 / 9) == (720, 540)
    # what would become too large shrinks in the other direction
    assert shape_of(7680, 4320, 2.0) == (7680, 2160) and shape_of(7680, 4320, 0.5) == (3840, 4320)


@needs_ffmpeg
def test_boxes_lie_in_the_shown_picture(tmp_path: Path, localizer: Localizer) -> None:
    """A square that is stored half as wide is found at its place and drawn as a square."""
    wide = SCENE.frame(180, 240)
    squeezed = np.ascontiguousarray(wide[:, ::2])
    clip = write_clip(tmp_path / "c.mp4", [squeezed] * 20, [n / 30 for n in range(20)], SCENE.sound(1.0, 44100))
    ffmpeg("-i", clip, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1", tmp_path / "a.mp4")
    media = open_media(tmp_path / "a.mp4")
    assert (media.info.width, media.info.height) == (240, 180)
    result, rgb = list(localizer.stream_with_frames(media))[10]
    assert rgb.shape == wide.shape and np.abs(rgb.astype(int) - wide).mean() < 8
    assert result.sources[0].peak == pytest.approx((0.25, 0.3), abs=0.07)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv", "mov"])
def test_an_orientation_among_the_pictures_holds_for_a_sequence(tmp_path: Path, suffix: str) -> None:
    """A phone that was mirrored in its middle: H.264 says so with the first picture of each sequence alone."""
    upright = SCENE.frame(180, 240)
    parts = []
    for number, (stored, how) in enumerate([(upright, "remove"), (upright[:, ::-1], "insert:flip=horizontal")]):
        plain = tmp_path / f"plain{number}.mp4"
        write_clip(plain, [stored] * 20, [n / 20 for n in range(20)], SCENE.sound(1.0, 44100), fps=20)
        parts.append(tmp_path / f"part{number}.ts")
        coded = ("-c:v", "libx264", "-g", "99", "-c:a", "copy")
        ffmpeg("-i", plain, *coded, "-bsf:v", f"h264_metadata=display_orientation={how}", parts[-1])
    both = tmp_path / f"both.{suffix}"
    ffmpeg("-i", "concat:" + "|".join(map(str, [*parts, parts[0]])), "-c", "copy", both)
    rgb = [frame.rgb for frame in open_media(both).video()]
    # a part's last packet is not always there in what they are joined to
    assert len(rgb) >= 57
    assert max(np.abs(one.astype(int) - upright).mean() for one in rgb) < 4
