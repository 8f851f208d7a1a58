"""Plain sound files are taken as they lie, without a decoder, and give the same; of damaged ones the rest is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from avgn.runtime import audio_file
from avgn.runtime.audio_file import Decoded, Pcm, open_audio
from avgn.runtime.errors import InputError
from avgn.runtime.reading import read_clip, read_through, read_wav
from tests.runtime.coded import CODED, coded, damage
from tests.runtime.ffmpeg import needs_ffmpeg


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float32", "float64"])
def test_plain_wav_equals_the_decoder(tmp_path: Path, kind: str) -> None:
    tone = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, 2))
    scale = {"int16": 32767, "int32": 2**31 - 1, "uint8": 127}.get(kind, 1)
    samples = (tone * scale + (128 if kind == "uint8" else 0)).astype(kind)
    wavfile.write(tmp_path / "a.wav", 48_000, samples)
    decoded = Decoded(tmp_path / "a.wav")
    with open_audio(tmp_path / "a.wav") as found:
        assert isinstance(found, Pcm) and found.rate == decoded.rate == 48_000
        np.testing.assert_array_equal(found.read(0, 5000), decoded.read(0, 5000))
        np.testing.assert_array_equal(found.read(100, 203), decoded.read(100, 203))
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    short, whole = (read_wav(tmp_path / name)[0] for name in ("cut.wav", "a.wav"))
    assert len(whole) == 5000 and 2450 < len(short) < 2500
    np.testing.assert_array_equal(short, whole[: len(short)])


@needs_ffmpeg
@pytest.mark.parametrize("name", CODED)
def test_what_is_not_damaged_is_read(tmp_path: Path, name: str) -> None:
    whole, rate = read_wav(coded(tmp_path / name))
    found, same = read_wav(damage(tmp_path / name, 0, 5))
    assert same == rate == 48_000 and len(whole) - 10_000 <= len(found) <= len(whole)
    # what comes after the damage is what it was; decoders begin a little earlier or later
    piece, around = whole[80_000:81_000], found[70_000:86_000]
    off = np.min([np.abs(around[at : at + 1000] - piece).max() for at in range(15_000)])
    assert np.abs(piece).max() > 0.4 and off < 0.01
    clip = read_clip(tmp_path / name, 22_050, 22_050)
    assert np.sqrt(np.mean(clip**2)) > 0.1
    # avgn import --check leaves out what training would hear in part
    with pytest.raises(InputError, match=f"audio .*{name} is damaged .*: mend or remove the item"):
        read_through(tmp_path / name)
    with pytest.raises(InputError, match=f"audio .*{name} can't be read"):
        read_wav(damage(tmp_path / name, -1))


@needs_ffmpeg
def test_a_long_sound_is_damaged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is decoded again for each span counts its damage at the first time."""
    monkeypatch.setattr(audio_file, "KEPT", 1000)
    sound = Decoded(damage(coded(tmp_path / "mp3.wav"), 3, 30))
    assert sound.corrupt == 2
    first = sound.read(0, 70_000)
    np.testing.assert_array_equal(sound.read(0, 70_000), first)
    assert sound.corrupt == 2
