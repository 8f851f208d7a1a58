"""ID3 tags in front of formats that know nothing of them are skipped, wherever a sound is read."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import open_media
from avgn.runtime.audio_file import Pcm, open_audio
from avgn.runtime.errors import InputError
from avgn.runtime.reading import read_through, read_wav
from avgn.runtime.tags import tags_length
from tests.runtime.clips import Scene, still_clip
from tests.runtime.ffmpeg import ffmpeg, needs_ffmpeg


def tag(size: int, *, footer: bool = False) -> bytes:
    """An ID3 tag of version 2.4 with a title in it and `size` bytes in all."""
    title = b"TIT2" + struct.pack(">IH", 6, 0) + b"\x03hello"
    there = size - (20 if footer else 10)
    digits = bytes(there >> shift & 0x7F for shift in (21, 14, 7, 0))
    tail = b"3DI\x04\0\x10" + digits if footer else b""
    return b"ID3\x04\0" + bytes([0x10 * footer]) + digits + title.ljust(there, b"\0") + tail


TAGS = {
    "small": tag(40),
    "large": tag(300_001),
    "footer": tag(500, footer=True),
    "two": tag(40) + tag(2000),
}


def plain_wav(path: Path) -> Path:
    samples = (20_000 * np.sin(np.arange(24_000) / 20)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.parametrize("name", TAGS)
def test_a_wav_behind_a_tag(tmp_path: Path, name: str) -> None:
    whole, tagged = plain_wav(tmp_path / "a.wav"), tmp_path / "tagged.wav"
    tagged.write_bytes(TAGS[name] + whole.read_bytes())
    with open_audio(tagged) as audio:
        assert isinstance(audio, Pcm)
    np.testing.assert_array_equal(read_wav(tagged)[0], read_wav(whole)[0])
    read_through(tagged)
    # the runtime's own way, with a decoder
    clip = still_clip(tmp_path / "v.mp4", Scene(seen={0: (0.25, 0.3)}), seconds=0.5)
    heard = [np.concatenate([b.samples for b in open_media(clip, path).audio()]) for path in (tagged, whole)]
    assert len(heard[0]) == 24_000
    np.testing.assert_array_equal(heard[0], heard[1])
    # cut off, it has the samples that are there
    tagged.write_bytes(tagged.read_bytes()[:-20_000])
    assert len(read_wav(tagged)[0]) == 14_000


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.aiff", "adpcm.wav", "a.mp3", "a.flac"])
def test_other_formats_behind_a_tag(tmp_path: Path, name: str) -> None:
    whole, tagged = tmp_path / name, tmp_path / f"tagged-{name}"
    codec = ("-c:a", "adpcm_ima_wav") if name == "adpcm.wav" else ()
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=440:duration=1:sample_rate=48000", *codec, whole)
    tagged.write_bytes(TAGS["large"] + whole.read_bytes())
    np.testing.assert_array_equal(read_wav(tagged)[0], read_wav(whole)[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID3",
        b"RIFF\0\0\0\0WAVE",
        b"ID3\x04\0\0\0\0\0\x80" + bytes(200),
        b"ID3\xff\0\0\0\0\0\x01" + bytes(200),
        b"ID\x03\x04\0\0\0\0\0\x01" + bytes(200),
    ],
)
def test_what_is_no_tag(data: bytes) -> None:
    assert tags_length(io.BytesIO(data)) == 0


def test_tags_and_nothing_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(TAGS["small"] * 1000)
    assert tags_length(io.BytesIO(TAGS["small"] * 1000)) == 8 * 40
    for data in (TAGS["small"] * 1000, TAGS["small"], tag(500)[:60]):
        (tmp_path / "a.wav").write_bytes(data)
        with pytest.raises(InputError, match="a.wav can't be read .*: give a wav file"):
            read_wav(tmp_path / "a.wav")
