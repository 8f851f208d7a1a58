"""Stills as people have them: upright whatever made them, held with their sound, or refused in a sentence."""

from __future__ import annotations

import base64
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from avgn.runtime.errors import InputError
from avgn.runtime.media import VideoFrame, open_media
from avgn.runtime.pictures import Pictures
from avgn.runtime.reading import read_wav

# two tiles of 64x64, as avifenc --grid 2x1 stores them
TILES = """
AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAAF/bWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAA
AGxpYmF2aWYAAAAADnBpdG0AAAAAAAEAAAA6aWxvYwAAAABEAAADAAEAAAABAAABpwAAAAgAAgAAAAEAAAGvAAAAJAADAAAAAQAA
AdMAAAAhAAAAXGlpbmYAAAAAAAMAAAAaaW5mZQIAAAAAAQAAZ3JpZENvbG9yAAAAABppbmZlAgAAAQACAABhdjAxQ29sb3IAAAAA
GmluZmUCAAABAAMAAGF2MDFDb2xvcgAAAAAcaXJlZgAAAAAAAAAQZGltZwABAAIAAgADAAAAi2lwcnAAAABfaXBjbwAAABRpc3Bl
AAAAAAAAAIAAAABAAAAAEHBpeGkAAAAAAwgICAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAAxhdjFD
gSAAAAAAACRpcG1hAAAAAAAAAAMAAQMBAgMAAgQEAoUDAAMEBAKFAwAAAFVtZGF0AAAAAQCAAEASAAoJOBV//YQENBpAMhUcwC22
20QAwbifTgvWwfHZ8hr94EASAAoJOBV//YQENBpAMhIcwC2220QAyKLobnpIWrzw22Q=
"""
ORIENTATION = 0x112
avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")


def picture() -> Image.Image:
    """Four quarters, all different."""
    rgb = np.zeros((64, 96, 3), np.uint8)
    rgb[:32, :48], rgb[:32, 48:], rgb[32:, :48], rgb[32:, 48:] = (220, 30, 30), (30, 200, 30), (30, 30, 220), 200
    return Image.fromarray(rgb)


def write_sound(path: Path, seconds: float) -> Path:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * 16_000)) / 16_000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((32767 * tone).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright(tmp_path: Path, orientation: int) -> None:
    """All eight orientations that cameras note, the mirrored ones of front cameras, too; Pillow is the truth."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture().save(tmp_path / "a.jpg", quality=95, exif=exif)
    truth = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).convert("RGB"))
    (found,) = Pictures(tmp_path / "a.jpg")
    assert found.rgb.shape == truth.shape
    # decoders make colours differ where the quarters meet
    assert np.abs(found.rgb.astype(int) - truth).mean() < 5


@pytest.mark.parametrize("suffix", ["png", "jpg", pytest.param("avif", marks=avif)])
def test_a_still_is_held_for_as_long_as_the_sound(tmp_path: Path, suffix: str) -> None:
    picture().save(tmp_path / f"a.{suffix}")
    media = open_media(tmp_path / f"a.{suffix}", write_sound(tmp_path / "a.wav", 2.0))
    times = [event.time for event in media.events(0.0) if isinstance(event, VideoFrame)]
    assert times[0] == 0.0 and times[-1] == pytest.approx(2.0, abs=0.15)
    assert np.diff(times).max() < 0.11


@avif
def test_pictures_that_move_are_all_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), (value, 40, 90)) for value in (20, 120, 220)]
    for suffix in ("gif", "png", "avif"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=200)
        found = list(Pictures(path))
        assert [round(frame.time, 2) for frame in found] == [0.0, 0.2, 0.4], suffix
        assert [abs(int(frame.rgb[20, 20, 0]) - value) < 12 for frame, value in zip(found, (20, 120, 220), strict=True)]


def test_what_would_be_read_in_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "phone.avif").write_bytes(base64.b64decode(TILES))
    frames = [Image.new("RGB", (64, 48), (value, 40, 90)) for value in (20, 120)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], duration=200)
    for name, said in (("phone.avif", "in 2 tiles.*save it as JPEG"), ("moving.webp", "animated WebP.*save it as GIF")):
        with pytest.raises(InputError, match=said):
            Pictures(tmp_path / name)
        with pytest.raises(InputError, match=said):
            open_media(tmp_path / name, write_sound(tmp_path / "a.wav", 0.2))


def test_sound_without_a_decoder_is_a_sentence(tmp_path: Path) -> None:
    data = bytearray(write_sound(tmp_path / "a.wav", 0.2).read_bytes())
    # samples of no bits
    data[34:36] = struct.pack("<H", 0)
    (tmp_path / "a.wav").write_bytes(data)
    picture().save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.wav has sound in a format that FFmpeg can't decode.*--audio"):
        open_media(tmp_path / "a.png", tmp_path / "a.wav")
    with pytest.raises(InputError, match=r"a\.wav can't be read \(FFmpeg can't decode"):
        read_wav(tmp_path / "a.wav")


def test_a_sound_that_says_no_length_is_whole(tmp_path: Path) -> None:
    """As programs write it into a pipe."""
    path = write_sound(tmp_path / "a.wav", 0.5)
    truth = read_wav(path)[0]
    data = bytearray(path.read_bytes())
    for size in (0, 0xFFFFFFFF):
        data[4:8] = data[40:44] = struct.pack("<I", size)
        path.write_bytes(data)
        np.testing.assert_array_equal(read_wav(path)[0], truth)
