"""Plain sound files are taken as they lie, without a decoder, and give the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from avgn.runtime.reading import read_wav


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float32", "float64"])
def test_plain_wav_equals_the_decoder(tmp_path: Path, kind: str) -> None:
    from avgn.runtime.audio_file import Decoded, Pcm, open_audio

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
